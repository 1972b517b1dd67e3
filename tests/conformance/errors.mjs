// The SDK's own error classes, where something is wrong.
import assert from 'node:assert/strict'

import { check, e2b, failure, Sandbox, shared } from './sdk.mjs'

const WRONG_KEY = 'e2b_ffffffffffffffffffffffffffffffffffffffff'

async function dead() {
  const s = await Sandbox.create({ timeoutMs: 60000 })
  await s.kill()
  return s
}

check('a wrong key is an AuthenticationError', async () => {
  assert.ok((await failure(Sandbox.create({ apiKey: WRONG_KEY }))) instanceof e2b.AuthenticationError)
  assert.ok((await failure(Sandbox.list({ apiKey: WRONG_KEY }).nextItems())) instanceof e2b.AuthenticationError)
})

check('an unknown template is refused', async () => {
  const error = await failure(Sandbox.create('nobody-made-this'))
  assert.ok(error instanceof e2b.NotFoundError || error instanceof e2b.SandboxError, String(error))
  assert.match(error.message, /not found/)
})

check('a time to live beyond the longest is refused', async () => {
  const error = await failure(Sandbox.create({ timeoutMs: 1000 * 3600 * 1000 }))
  assert.ok(error instanceof e2b.SandboxError, String(error))
  assert.match(error.message, /cannot be greater/)
})

check('an unknown sandbox is a SandboxNotFoundError', async () => {
  const id = 'i00000000000000000000'
  assert.ok((await failure(Sandbox.connect(id))) instanceof e2b.SandboxNotFoundError)
  assert.ok((await failure(Sandbox.getInfo(id))) instanceof e2b.SandboxNotFoundError)
  assert.ok((await failure(Sandbox.setTimeout(id, 1000))) instanceof e2b.SandboxNotFoundError)
  assert.equal(await Sandbox.kill(id), false)
})

check('a command in a killed sandbox', async () => {
  const s = await dead()
  const error = await failure(s.commands.run('true'))
  assert.ok(error instanceof e2b.SandboxNotFoundError || error instanceof e2b.TimeoutError, String(error))
})

check('files and lists of a killed sandbox are TimeoutErrors', async () => {
  const s = await dead()
  const calls = {
    read: () => s.files.read('x'),
    write: () => s.files.write('x', 'y'),
    list: () => s.files.list('.'),
    exists: () => s.files.exists('x'),
    processes: () => s.commands.list(),
  }
  for (const [name, call] of Object.entries(calls)) {
    const error = await failure(call())
    assert.ok(error instanceof e2b.TimeoutError, `${name}: ${error?.constructor.name}: ${error}`)
  }
})

check('a sandbox killed under a running command says so', async () => {
  const s = await Sandbox.create({ timeoutMs: 60000 })
  const h = await s.commands.run('sleep 600', { background: true, timeoutMs: 0 })
  await s.kill()
  const error = await failure(h.wait())
  assert.ok(error instanceof e2b.TimeoutError, String(error))
})

check('a time to live that ends under a running command says so', async () => {
  const s = await Sandbox.create({ timeoutMs: 1000 })
  const error = await failure(s.commands.run('sleep 600', { timeoutMs: 0 }))
  assert.ok(error instanceof e2b.TimeoutError, String(error))
})

check('a wrong token of a sandbox is an AuthenticationError', async () => {
  const s = await shared()
  const info = await s.getInfo()
  const other = new Sandbox({ sandboxId: s.sandboxId, envdVersion: info.envdVersion, envdAccessToken: '0'.repeat(64) })
  assert.ok((await failure(other.commands.run('true'))) instanceof e2b.AuthenticationError)
  assert.ok((await failure(other.files.read('x'))) instanceof e2b.AuthenticationError)
})

check('the shared sandbox has lived through all of it', async () => {
  const s = await shared()
  assert.equal((await s.commands.run('echo alive')).stdout, 'alive\n')
  assert.equal(await s.kill(), true)
})
