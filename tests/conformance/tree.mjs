// The tree: list, exists, info, make, rename, remove.
import assert from 'node:assert/strict'

import { check, e2b, failure, shared } from './sdk.mjs'

check('list gives the entries of a directory', async () => {
  const s = await shared()
  await s.commands.run('mkdir -p t/d && echo 1234 > t/f && ln -s f t/l && chmod 640 t/f')
  const entries = await s.files.list('t')
  assert.deepEqual(entries.map((e) => [e.name, e.type]).sort(), [['d', 'dir'], ['f', 'file'], ['l', 'symlink']])
  const f = entries.find((e) => e.name === 'f')
  assert.deepEqual([f.path, f.size, f.mode & 0o777, f.permissions], ['/home/user/t/f', 5, 0o640, '-rw-r-----'])
  assert.deepEqual([f.owner, f.group], ['user', 'user'])
  assert.ok(Math.abs(f.modifiedTime - Date.now()) < 60000)
})

check('list goes as deep as asked', async () => {
  const s = await shared()
  await s.commands.run('mkdir -p deep3/a/b/c && touch deep3/a/b/c/x')
  const names = async (depth) => (await s.files.list('deep3', { depth })).map((e) => e.path.slice(17)).sort()
  assert.deepEqual(await names(1), ['a'])
  assert.deepEqual(await names(2), ['a', 'a/b'])
  assert.deepEqual(await names(9), ['a', 'a/b', 'a/b/c', 'a/b/c/x'])
})

check('a depth below 1 is an InvalidArgumentError', async () => {
  const s = await shared()
  const error = await failure(s.files.list('.', { depth: 0 }))
  assert.ok(error instanceof e2b.InvalidArgumentError, String(error))
})

check('list of a large directory', async () => {
  const s = await shared()
  await s.commands.run('mkdir large && cd large && seq 1 2000 | xargs touch')
  assert.equal((await s.files.list('large')).length, 2000)
})

check('list of what is not there, and of a file', async () => {
  const s = await shared()
  assert.ok((await failure(s.files.list('no-dir'))) instanceof e2b.FileNotFoundError)
  await s.files.write('plain', '')
  assert.ok((await failure(s.files.list('plain'))) instanceof e2b.InvalidArgumentError)
})

check('exists', async () => {
  const s = await shared()
  await s.files.write('here', '')
  assert.equal(await s.files.exists('here'), true)
  assert.equal(await s.files.exists('/home/user'), true)
  assert.equal(await s.files.exists('not-here'), false)
})

check('getInfo of a file, a directory and a link', async () => {
  const s = await shared()
  await s.commands.run('mkdir -p i && echo 123 > i/f && ln -s f i/l')
  const f = await s.files.getInfo('i/f')
  assert.deepEqual([f.name, f.type, f.path, f.size], ['f', 'file', '/home/user/i/f', 4])
  assert.ok(f.modifiedTime instanceof Date)
  assert.equal((await s.files.getInfo('i')).type, 'dir')
  const l = await s.files.getInfo('i/l')
  assert.equal(l.symlinkTarget, '/home/user/i/f')
})

check('getInfo of what is not there is a FileNotFoundError', async () => {
  const s = await shared()
  assert.ok((await failure(s.files.getInfo('no-info'))) instanceof e2b.FileNotFoundError)
})

check('makeDir says whether it was needed', async () => {
  const s = await shared()
  assert.equal(await s.files.makeDir('made/of/many'), true)
  assert.equal(await s.files.makeDir('made/of/many'), false)
  assert.equal((await s.files.getInfo('made/of')).owner, 'user')
})

check('makeDir over a file is an InvalidArgumentError', async () => {
  const s = await shared()
  await s.files.write('is-a-file', '')
  const error = await failure(s.files.makeDir('is-a-file'))
  assert.ok(error instanceof e2b.InvalidArgumentError, String(error))
})

check('rename moves files and directories', async () => {
  const s = await shared()
  await s.files.write('r/one', 'x')
  const info = await s.files.rename('r/one', 'r/two')
  assert.deepEqual([info.name, info.path], ['two', '/home/user/r/two'])
  assert.equal(await s.files.exists('r/one'), false)
  await s.files.rename('r', 'r-moved')
  assert.equal(await s.files.read('r-moved/two'), 'x')
})

check('rename of what is not there is a FileNotFoundError', async () => {
  const s = await shared()
  assert.ok((await failure(s.files.rename('no-old', 'no-new'))) instanceof e2b.FileNotFoundError)
})

check('remove takes a whole tree, and twice is as once', async () => {
  const s = await shared()
  await s.commands.run('mkdir -p gone/a/b && touch gone/a/b/c')
  await s.files.remove('gone')
  assert.equal(await s.files.exists('gone'), false)
  await s.files.remove('gone')
})

check('what this host does not serve of files is refused, not pretended', async () => {
  const s = await shared()
  assert.ok((await failure(s.files.write('m', 'x', { metadata: { a: 'b' } }))) instanceof e2b.TemplateError)
  const watch = await failure(s.files.watchDir('.', () => {}))
  assert.ok(watch instanceof e2b.SandboxError, String(watch))
  assert.match(watch.message, /not available/)
  const gzip = await failure(s.files.write('z', 'x', { gzip: true }))
  assert.ok(gzip instanceof e2b.SandboxError, String(gzip))
  assert.equal(await s.files.exists('z'), false)
})
