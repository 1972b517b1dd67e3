// The life of a sandbox: create, connect, list, info, time to live, metrics, snapshots, kill.
import assert from 'node:assert/strict'

import { check, e2b, failure, Sandbox, SDK_VERSION, until, withSandbox } from './sdk.mjs'

check('the SDK is the pinned one', () => assert.equal(SDK_VERSION, '2.51.0'))

check('create gives a sandbox that runs', () =>
  withSandbox({}, async (s) => {
    assert.match(s.sandboxId, /^[a-z0-9]+$/)
    assert.equal(await s.isRunning(), true)
  }))

check('create by a template name', async () => {
  const s = await Sandbox.create('base', { timeoutMs: 60000 })
  assert.equal((await s.getInfo()).templateId, 'base')
  assert.equal(await s.kill(), true)
})

check('create with metadata; info gives it back', () =>
  withSandbox({ metadata: { job: 'a b', 'käse': 'x=1&y=2' } }, async (s) => {
    assert.deepEqual((await s.getInfo()).metadata, { job: 'a b', 'käse': 'x=1&y=2' })
  }))

check('create with environment variables', () =>
  withSandbox({ envs: { COLOUR: 'deep blue' } }, async (s) => {
    assert.equal((await s.commands.run('echo "$COLOUR"')).stdout, 'deep blue\n')
  }))

check('create without the internet has no way out', () =>
  withSandbox({ allowInternetAccess: false }, async (s) => {
    assert.equal((await s.getInfo()).allowInternetAccess, false)
    assert.doesNotMatch((await s.commands.run('cat /proc/net/dev')).stdout, /tap0/)
  }))

check('create keeps to the time to live that was asked for', async () => {
  await withSandbox({ timeoutMs: 77000 }, async (s) => {
    const { startedAt, endAt } = await s.getInfo()
    assert.ok(startedAt instanceof Date && endAt instanceof Date)
    assert.ok(Math.abs(endAt - startedAt - 77000) < 2000, `${endAt - startedAt} ms`)
  })
})

check('info describes the sandbox', () =>
  withSandbox({}, async (s) => {
    const info = await s.getInfo()
    assert.equal(info.sandboxId, s.sandboxId)
    assert.equal(info.state, 'running')
    assert.ok(info.cpuCount >= 1 && info.memoryMB >= 16)
    assert.match(info.envdVersion, /^0\.\d+\.\d+$/)
    assert.deepEqual(info.lifecycle, { autoResume: false, onTimeout: 'kill' })
    assert.deepEqual(await Sandbox.getInfo(s.sandboxId), info)
  }))

check('connect reaches the same sandbox', () =>
  withSandbox({}, async (s) => {
    await s.files.write('mark', 'mine')
    const again = await Sandbox.connect(s.sandboxId)
    assert.equal(again.sandboxId, s.sandboxId)
    assert.equal(await again.files.read('mark'), 'mine')
  }))

check('connect never shortens the time to live', () =>
  withSandbox({ timeoutMs: 200000 }, async (s) => {
    const before = (await s.getInfo()).endAt
    await Sandbox.connect(s.sandboxId, { timeoutMs: 5000 })
    assert.deepEqual((await s.getInfo()).endAt, before)
    await s.connect({ timeoutMs: 400000 })
    assert.ok((await s.getInfo()).endAt > before)
  }))

check('setTimeout moves the end, to both sides', () =>
  withSandbox({ timeoutMs: 60000 }, async (s) => {
    const left = async () => (await s.getInfo()).endAt - Date.now()
    await s.setTimeout(300000)
    assert.ok((await left()) > 250000)
    await Sandbox.setTimeout(s.sandboxId, 30000)
    assert.ok((await left()) < 40000)
  }))

check('the time to live ends a sandbox', async () => {
  const s = await Sandbox.create({ timeoutMs: 1000 })
  await until('the sandbox ends', async () => !(await s.isRunning()))
  await assert.rejects(s.getInfo(), e2b.NotFoundError)
})

check('kill says whether there was something to kill', async () => {
  const s = await Sandbox.create({ timeoutMs: 60000 })
  assert.equal(await s.kill(), true)
  assert.equal(await s.kill(), false)
  assert.equal(await Sandbox.kill(s.sandboxId), false)
})

check('isRunning after kill is false', async () => {
  const s = await Sandbox.create({ timeoutMs: 60000 })
  await s.kill()
  assert.equal(await s.isRunning(), false)
})

async function all(opts) {
  const pages = Sandbox.list(opts)
  const found = []
  let turns = 0
  while (pages.hasNext) {
    found.push(...(await pages.nextItems()))
    assert.ok(++turns <= 50, 'the pages do not end')
  }
  return { ids: found.map((s) => s.sandboxId), found, turns }
}

async function withMany(count, metadata, fn) {
  const boxes = []
  try {
    for (let i = 0; i < count; i++)
      boxes.push(await Sandbox.create({ timeoutMs: 120000, metadata: { ...metadata, n: String(i) } }))
    await fn(boxes.map((s) => s.sandboxId))
  } finally {
    await Promise.all(boxes.map((s) => s.kill()))
  }
}

check('list finds what was made, with its metadata', () =>
  withMany(1, { group: 'list' }, async ([id]) => {
    const { found } = await all({ query: { metadata: { group: 'list' } } })
    assert.deepEqual(found.map((s) => [s.sandboxId, s.metadata, s.state]), [[id, { group: 'list', n: '0' }, 'running']])
  }))

check('list in pages gives each sandbox once, the newest first', () =>
  withMany(5, { group: 'pages' }, async (ids) => {
    const { ids: listed, turns } = await all({ query: { metadata: { group: 'pages' } }, limit: 2 })
    assert.deepEqual(listed, ids.toReversed())
    assert.equal(turns, 3)
  }))

check('list in ascending order', () =>
  withMany(3, { group: 'ascending' }, async (ids) => {
    const { ids: listed } = await all({ query: { metadata: { group: 'ascending' } }, limit: 2, order: 'asc' })
    assert.deepEqual(listed, ids)
  }))

check('a page can be asked for by its token', () =>
  withMany(3, { group: 'token' }, async (ids) => {
    const first = Sandbox.list({ query: { metadata: { group: 'token' } }, limit: 1 })
    assert.deepEqual((await first.nextItems()).map((s) => s.sandboxId), [ids[2]])
    const second = Sandbox.list({ query: { metadata: { group: 'token' } }, limit: 1, nextToken: first.nextToken })
    assert.deepEqual((await second.nextItems()).map((s) => s.sandboxId), [ids[1]])
  }))

check('a page follows one whose last sandbox has died since', () =>
  withMany(3, { group: 'died' }, async (ids) => {
    const pages = Sandbox.list({ query: { metadata: { group: 'died' } }, limit: 1 })
    await pages.nextItems()
    await Sandbox.kill(ids[2])
    assert.deepEqual((await pages.nextItems()).map((s) => s.sandboxId), [ids[1]])
  }))

check('list filters by metadata of any characters', () =>
  withMany(2, { group: 'a/b c&d=é%' }, async (ids) => {
    const one = await all({ query: { metadata: { group: 'a/b c&d=é%', n: '1' } } })
    assert.deepEqual(one.ids, [ids[1]])
    assert.deepEqual((await all({ query: { metadata: { group: 'a/b c&d=é%', n: '7' } } })).ids, [])
  }))

check('list filters by state', () =>
  withMany(1, { group: 'state' }, async (ids) => {
    const query = { metadata: { group: 'state' } }
    assert.deepEqual((await all({ query: { ...query, state: ['running'] } })).ids, ids)
    assert.deepEqual((await all({ query: { ...query, state: ['running', 'paused'] } })).ids, ids)
    assert.deepEqual((await all({ query: { ...query, state: ['paused'] } })).ids, [])
  }))

check('list filters by start time and template', () =>
  withMany(1, { group: 'since' }, async (ids) => {
    const query = { metadata: { group: 'since' } }
    assert.deepEqual((await all({ query: { ...query, startedAfter: new Date(Date.now() - 60000) } })).ids, ids)
    assert.deepEqual((await all({ query: { ...query, startedAfter: new Date(Date.now() + 60000) } })).ids, [])
    assert.deepEqual((await all({ query: { ...query, template: 'base' } })).ids, ids)
    assert.deepEqual((await all({ query: { ...query, template: 'another' } })).ids, [])
  }))

check('metrics are of this sandbox', () =>
  withSandbox({}, async (s) => {
    await s.commands.run('head -c 5000000 /dev/urandom > f')
    const [m] = await s.getMetrics()
    assert.ok(m.timestamp instanceof Date && Math.abs(m.timestamp - Date.now()) < 60000)
    assert.ok(m.cpuUsedPct > 0 && m.memUsed > 0 && m.memUsed <= m.memTotal)
    assert.ok(m.diskUsed >= 5000000 && m.diskUsed < m.diskTotal)
  }))

check('a snapshot carries files into new sandboxes', () =>
  withSandbox({}, async (s) => {
    await s.files.write('app/v', 'one')
    const snapshot = await s.createSnapshot({ name: 'conformance' })
    assert.deepEqual(snapshot.names, ['conformance'])
    await s.files.write('app/v', 'two')
    const t = await Sandbox.create(snapshot.snapshotId, { timeoutMs: 60000 })
    assert.equal(await t.files.read('app/v'), 'one')
    await t.kill()
    const listed = await Sandbox.listSnapshots().nextItems()
    assert.ok(listed.some((x) => x.snapshotId === snapshot.snapshotId))
    assert.equal(await Sandbox.deleteSnapshot(snapshot.snapshotId), true)
    assert.equal(await Sandbox.deleteSnapshot(snapshot.snapshotId), false)
  }))

check('snapshots are listed by sandbox and by name', () =>
  withSandbox({}, async (s) => {
    const a = await s.createSnapshot({ name: 'named-one' })
    const b = await s.createSnapshot()
    try {
      const own = await s.listSnapshots().nextItems()
      assert.deepEqual(own.map((x) => x.snapshotId).sort(), [a.snapshotId, b.snapshotId].sort())
      const named = await Sandbox.listSnapshots({ name: 'named-one' }).nextItems()
      assert.deepEqual(named.map((x) => x.snapshotId), [a.snapshotId])
    } finally {
      await Sandbox.deleteSnapshot(a.snapshotId)
      await Sandbox.deleteSnapshot(b.snapshotId)
    }
  }))

check('what this host does not serve is refused, not pretended', () =>
  withSandbox({}, async (s) => {
    const calls = [() => s.pause(), () => s.fork(), () => s.updateNetwork({ allowInternetAccess: false })]
    for (const call of calls) {
      const error = await failure(call())
      assert.ok(error instanceof e2b.SandboxError, String(error))
      assert.match(error.message, /501|not available/)
    }
    assert.equal(await s.isRunning(), true)
  }))
