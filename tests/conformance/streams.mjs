// stdin, and output as it comes: callbacks, much of it, bytes of any kind.
import assert from 'node:assert/strict'
import { createHash } from 'node:crypto'

import { check, e2b, failure, shared, signal, until } from './sdk.mjs'

check('onStdout and onStderr are called while the command runs', async () => {
  const s = await shared()
  const out = []
  const err = []
  const first = signal()
  const h = await s.commands.run('echo early; echo oops >&2; while [ ! -e heard ]; do sleep 0.05; done; echo late', {
    background: true,
    onStdout: (text) => (out.push(text), first.fire()),
    onStderr: (text) => void err.push(text),
  })
  await first.fired
  assert.equal(out.join(''), 'early\n')
  await s.files.write('heard', '')
  await h.wait()
  assert.deepEqual([out.join(''), err.join('')], ['early\nlate\n', 'oops\n'])
})

check('a slow callback loses nothing', async () => {
  const s = await shared()
  let got = 0
  let turns = 0
  const r = await s.commands.run('head -c 3000000 /dev/zero | tr "\\0" x', {
    onStdout: async (text) => {
      got += text.length
      if (turns++ % 10 === 0) await new Promise((done) => setTimeout(done, 5))
    },
  })
  assert.equal(r.stdout.length, 3000000)
  assert.equal(got, 3000000)
})

check('20 MB of output arrive whole', async () => {
  const s = await shared()
  const r = await s.commands.run('seq 1 2700000 | tee >(sha256sum > sum)')
  const want = (await s.commands.run('cat sum')).stdout.split(' ')[0]
  assert.ok(r.stdout.length > 20e6)
  assert.equal(createHash('sha256').update(r.stdout).digest('hex'), want)
})

check('output that is no text comes replaced, and does not break the stream', async () => {
  const s = await shared()
  const r = await s.commands.run(`printf 'a\\xff\\xfeb\\0c'; echo end >&2`)
  assert.equal(r.stdout, 'a\ufffd\ufffdb\0c')
  assert.equal(r.stderr, 'end\n')
})

check('binary output of a command is exact, by a file', async () => {
  const s = await shared()
  await s.commands.run('head -c 1000000 /dev/urandom > noise; sha256sum < noise > noise.sum')
  const bytes = await s.files.read('noise', { format: 'bytes' })
  assert.equal(createHash('sha256').update(bytes).digest('hex'), (await s.files.read('noise.sum')).split(' ')[0])
})

check('a command without stdin reads its end at once', async () => {
  const s = await shared()
  assert.equal((await s.commands.run('cat; echo over')).stdout, 'over\n')
})

check('sendStdin and closeStdin', async () => {
  const s = await shared()
  const h = await s.commands.run('cat; echo over', { background: true, stdin: true })
  await s.commands.sendStdin(h.pid, 'one\n')
  await until('it echoes', () => h.stdout === 'one\n')
  await h.sendStdin('two é\n')
  await h.closeStdin()
  assert.equal((await h.wait()).stdout, 'one\ntwo é\nover\n')
})

check('stdin takes bytes as they are', async () => {
  const s = await shared()
  const bytes = Uint8Array.from({ length: 200000 }, (_, i) => (i * 7) % 256)
  const h = await s.commands.run('cat > stdin.bin', { background: true, stdin: true })
  for (let at = 0; at < bytes.length; at += 50000) await h.sendStdin(bytes.subarray(at, at + 50000))
  await h.closeStdin()
  await h.wait()
  assert.deepEqual(await s.files.read('stdin.bin', { format: 'bytes' }), bytes)
})

check('closeStdin twice is as once', async () => {
  const s = await shared()
  const h = await s.commands.run('cat > /dev/null; sleep 0.5', { background: true, stdin: true })
  await h.closeStdin()
  await h.closeStdin()
  assert.equal((await h.wait()).exitCode, 0)
})

check('input to a closed stdin is refused', async () => {
  const s = await shared()
  const h = await s.commands.run('sleep 600', { background: true, timeoutMs: 0 })
  const error = await failure(s.commands.sendStdin(h.pid, 'x'))
  assert.ok(error instanceof e2b.SandboxError, String(error))
  await h.kill()
})

check('input to no process is a NotFoundError', async () => {
  const s = await shared()
  const error = await failure(s.commands.sendStdin(999999, 'x'))
  assert.ok(error instanceof e2b.NotFoundError, String(error))
})

check('a daemon left behind with the output shut does not hold the end back', async () => {
  const s = await shared()
  const r = await s.commands.run('setsid sleep 600 </dev/null >/dev/null 2>&1 & echo started', { timeoutMs: 10000 })
  assert.equal(r.stdout, 'started\n')
})
