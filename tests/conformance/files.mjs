// Files: writing and reading in every form of the SDK.
import assert from 'node:assert/strict'
import { randomBytes } from 'node:crypto'

import { check, e2b, failure, shared } from './sdk.mjs'

const text = (stream) => new Response(stream).text()

check('write and read a text', async () => {
  const s = await shared()
  const info = await s.files.write('a.txt', 'hello')
  assert.deepEqual([info.name, info.path, info.type], ['a.txt', '/home/user/a.txt', 'file'])
  assert.equal(await s.files.read('a.txt'), 'hello')
})

check('write makes the directories above', async () => {
  const s = await shared()
  await s.files.write('deep/er/still/x', '1')
  assert.equal(await s.files.read('/home/user/deep/er/still/x'), '1')
  assert.equal((await s.commands.run('stat -c %U deep/er')).stdout, 'user\n')
})

check('write replaces the whole content', async () => {
  const s = await shared()
  await s.files.write('again', 'a long first text')
  await s.files.write('again', 'short')
  assert.equal(await s.files.read('again'), 'short')
})

check('write to an absolute path', async () => {
  const s = await shared()
  const info = await s.files.write('/tmp/abs.txt', 'x')
  assert.equal(info.path, '/tmp/abs.txt')
})

check('write an ArrayBuffer and a Blob', async () => {
  const s = await shared()
  const bytes = Uint8Array.from([0, 255, 10, 13, 0, 128])
  await s.files.write('buffer', bytes.buffer)
  await s.files.write('blob', new Blob([bytes, 'tail']))
  assert.deepEqual(await s.files.read('buffer', { format: 'bytes' }), bytes)
  assert.deepEqual(await s.files.read('blob', { format: 'bytes' }), new Uint8Array([...bytes, ...Buffer.from('tail')]))
})

check('write a stream', async () => {
  const s = await shared()
  const pieces = ['one ', 'two ', 'three']
  const stream = new ReadableStream({
    pull: (c) => (pieces.length ? c.enqueue(new TextEncoder().encode(pieces.shift())) : c.close()),
  })
  await s.files.write('stream', stream)
  assert.equal(await s.files.read('stream'), 'one two three')
})

check('write as an octet stream', async () => {
  const s = await shared()
  const info = await s.files.write('octets', 'raw', { useOctetStream: true })
  assert.equal(info.path, '/home/user/octets')
  assert.equal(await s.files.read('octets'), 'raw')
})

check('write many at once', async () => {
  const s = await shared()
  const files = Array.from({ length: 30 }, (_, i) => ({ path: `many/${i % 3}/f${i}`, data: `n${i}` }))
  const infos = await s.files.write(files)
  assert.deepEqual(infos.map((f) => f.path), files.map((f) => `/home/user/${f.path}`))
  for (const f of files) assert.equal(await s.files.read(f.path), f.data)
})

check('write many as octet streams', async () => {
  const s = await shared()
  const infos = await s.files.writeFiles(
    [
      { path: 'o/1', data: 'a' },
      { path: '/tmp/o2', data: new Blob(['b']) },
    ],
    { useOctetStream: true },
  )
  assert.deepEqual(infos.map((f) => f.path), ['/home/user/o/1', '/tmp/o2'])
  assert.equal(await s.files.read('/tmp/o2'), 'b')
})

check('write as root', async () => {
  const s = await shared()
  await s.files.write('/opt/by-root', 'x', { user: 'root' })
  assert.equal((await s.commands.run('stat -c %U /opt/by-root')).stdout, 'root\n')
})

check('read as bytes, blob and stream', async () => {
  const s = await shared()
  await s.files.write('forms', 'three forms')
  assert.deepEqual(await s.files.read('forms', { format: 'bytes' }), new Uint8Array(Buffer.from('three forms')))
  const blob = await s.files.read('forms', { format: 'blob' })
  assert.ok(blob instanceof Blob)
  assert.equal(await blob.text(), 'three forms')
  assert.equal(await text(await s.files.read('forms', { format: 'stream' })), 'three forms')
})

check('an empty file, in every form', async () => {
  const s = await shared()
  await s.files.write('empty', '')
  assert.equal(await s.files.read('empty'), '')
  assert.equal((await s.files.read('empty', { format: 'bytes' })).length, 0)
  assert.equal((await s.files.read('empty', { format: 'blob' })).size, 0)
  assert.equal(await text(await s.files.read('empty', { format: 'stream' })), '')
  assert.equal((await s.files.getInfo('empty')).size, 0)
})

check('names with spaces, quotes, percent signs and other scripts', async () => {
  const s = await shared()
  for (const name of ['a b', 'käse 漢字 🙂', '100%25', 'q"uote\'s', 'plus+and&=?#', '-dash']) {
    const info = await s.files.write(`names/${name}`, name)
    assert.equal(info.name, name)
    assert.equal(await s.files.read(`names/${name}`), name)
    await s.files.write(`names/o ${name}`, name, { useOctetStream: true })
    assert.equal(await s.files.read(`names/o ${name}`), name)
  }
  const names = (await s.files.list('names')).map((e) => e.name)
  assert.ok(names.includes('käse 漢字 🙂') && names.includes('q"uote\'s') && names.length === 12, String(names))
})

check('5 MB of random bytes go and come back', async () => {
  const s = await shared()
  const bytes = new Uint8Array(randomBytes(5 << 20))
  await s.files.write('big', bytes.buffer)
  assert.deepEqual(await s.files.read('big', { format: 'bytes' }), bytes)
  await s.files.write('big2', bytes.buffer, { useOctetStream: true })
  assert.equal((await s.commands.run('cmp big big2 && echo same')).stdout, 'same\n')
})

check('a streamed read of a large file, left early, harms nothing', async () => {
  const s = await shared()
  await s.commands.run('head -c 50000000 /dev/zero > huge')
  const reader = (await s.files.read('huge', { format: 'stream' })).getReader()
  await reader.read()
  await reader.cancel()
  assert.equal((await s.commands.run('rm huge; echo fine')).stdout, 'fine\n')
})

check('reading what is not there is a FileNotFoundError', async () => {
  const s = await shared()
  const error = await failure(s.files.read('nowhere'))
  assert.ok(error instanceof e2b.FileNotFoundError, String(error))
})

check('reading a directory is an InvalidArgumentError', async () => {
  const s = await shared()
  const error = await failure(s.files.read('/home'))
  assert.ok(error instanceof e2b.InvalidArgumentError, String(error))
})

check('a full disk is a NotEnoughSpaceError', async () => {
  const s = await shared()
  const bytes = new Uint8Array(150 << 20)
  const error = await failure(s.files.write('too-much', bytes.buffer, { useOctetStream: true }))
  assert.ok(error instanceof e2b.NotEnoughSpaceError, String(error))
  await s.files.remove('too-much')
})
