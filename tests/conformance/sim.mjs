// The simulated E2B (tests/sim): what E2B's SDK needs of it to run load. A run of its own, against sandpiper-e2b-sim.
import assert from 'node:assert/strict'

import { check, failure, Sandbox, withSandbox } from './sdk.mjs'

const order = (sim) => JSON.stringify({ sim })

check('simulated: create, info, kill', async () => {
  const s = await Sandbox.create({ timeoutMs: 60000, metadata: { job: 'a b' } })
  const info = await s.getInfo()
  assert.equal(info.sandboxId, s.sandboxId)
  assert.deepEqual(info.metadata, { job: 'a b' })
  assert.equal(await s.isRunning(), true)
  assert.equal(await s.kill(), true)
  assert.equal(await s.isRunning(), false)
  assert.equal(await s.kill(), false)
})

check('simulated: list by metadata', () =>
  withSandbox({ metadata: { who: 'x y', also: 'ü' } }, async (s) => {
    const found = await Sandbox.list({ query: { metadata: { who: 'x y', also: 'ü' } } }).nextItems()
    assert.deepEqual(found.map((b) => b.sandboxId), [s.sandboxId])
    assert.deepEqual(await Sandbox.list({ query: { metadata: { who: 'nobody' } } }).nextItems(), [])
  }))

check('simulated: a time to live can be set', () =>
  withSandbox({}, async (s) => {
    await s.setTimeout(777000)
    const { startedAt, endAt } = await s.getInfo()
    assert.ok(Math.abs(endAt - startedAt - 777000) < 5000)
  }))

check('simulated: connect reaches the same sandbox', () =>
  withSandbox({}, async (s) => {
    const again = await Sandbox.connect(s.sandboxId)
    assert.equal((await again.commands.run(order({ output: 'mine' }))).stdout, 'mine')
  }))

check('simulated: a command answers with its own text', () =>
  withSandbox({}, async (s) => assert.equal((await s.commands.run('a text, grüße')).stdout, 'a text, grüße')))

check('simulated: a command answers as it was told, in pieces', () =>
  withSandbox({}, async (s) => {
    const pieces = []
    const r = await s.commands.run(order({ run_ms: 300, pieces: 3, output: 'abc', stderr: 'e' }), {
      onStdout: (text) => pieces.push(text),
    })
    assert.equal(r.stdout, 'abc')
    assert.equal(r.stderr, 'e')
    assert.deepEqual(pieces, ['a', 'b', 'c'])
  }))

check('simulated: an exit code is an error', () =>
  withSandbox({}, async (s) => assert.equal((await failure(s.commands.run(order({ exit_code: 7 })))).exitCode, 7)))

check('simulated: a background command is listed and killed', () =>
  withSandbox({}, async (s) => {
    const c = await s.commands.run(order({ run_ms: 60000 }), { background: true })
    assert.deepEqual((await s.commands.list()).map((p) => p.pid), [c.pid])
    assert.equal(await s.commands.kill(c.pid), true)
    await failure(c.wait())
    assert.deepEqual(await s.commands.list(), [])
  }))

check('simulated: a command can be connected to', () =>
  withSandbox({}, async (s) => {
    const c = await s.commands.run(order({ run_ms: 1000, pieces: 2, output: 'xy' }), { background: true })
    const other = await s.commands.connect(c.pid)
    assert.equal((await other.wait()).stdout, 'xy')
    assert.equal((await c.wait()).stdout, 'xy')
  }))

check('simulated: a file that was written is read back, and is the input of a command without any', () =>
  withSandbox({}, async (s) => {
    await s.files.write('/tmp/prompt', 'the prompt')
    assert.equal(await s.files.read('/tmp/prompt'), 'the prompt')
    assert.equal((await s.commands.run('')).stdout, 'the prompt')
  }))

check('simulated: what it does not serve is said', () =>
  withSandbox({}, async (s) => assert.match(String(await failure(s.files.makeDir('/x'))), /simulator does not serve/)))
