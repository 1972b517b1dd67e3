// E2B's SDK as npm delivers it, and what all checks share. The directory that holds node_modules is named by
// SP_E2B_DIR: installed packages are build output, and lie there.
import { createRequire } from 'node:module'
import { test } from 'node:test'

const require = createRequire(`${process.env.SP_E2B_DIR}/package.json`)
export const e2b = require('e2b')
export const { Sandbox } = e2b
export const SDK_VERSION = require('e2b/package.json').version

const CHECK_MS = 60000

// One named check, with a deadline.
export function check(name, fn) {
  test(name, { timeout: CHECK_MS }, fn)
}

// One sandbox for all checks that need no other: made when the first of them asks, killed by the last check.
let box = null
export async function shared() {
  box ??= await Sandbox.create({ timeoutMs: 600000 })
  return box
}

// One that belongs to a single check.
export async function withSandbox(opts, fn) {
  const s = await Sandbox.create({ timeoutMs: 120000, ...opts })
  try {
    return await fn(s)
  } finally {
    await s.kill()
  }
}

// Waits until probe() gives something true, and returns it.
export async function until(what, probe, ms = 15000) {
  const end = Date.now() + ms
  for (;;) {
    const value = await probe()
    if (value) return value
    if (Date.now() > end) throw new Error(`not within ${ms} ms: ${what}`)
    await new Promise((done) => setTimeout(done, 20))
  }
}

// What a promise is rejected with.
export async function failure(promise) {
  try {
    await promise
  } catch (error) {
    return error
  }
  throw new Error('no error came')
}

// A promise and its resolver.
export function signal() {
  let fire
  const fired = new Promise((done) => (fire = done))
  return { fired, fire }
}
