// Commands: results, errors, users, directories, environments, listing, signals, time limits.
import assert from 'node:assert/strict'

import { check, e2b, failure, shared, until } from './sdk.mjs'

check('run gives stdout, stderr and exit code', async () => {
  const s = await shared()
  const r = await s.commands.run('echo out; echo err >&2')
  assert.deepEqual([r.stdout, r.stderr, r.exitCode, r.error], ['out\n', 'err\n', 0, undefined])
})

check('run of a program that fails is a CommandExitError', async () => {
  const s = await shared()
  const error = await failure(s.commands.run('echo before; echo why >&2; exit 3'))
  assert.ok(error instanceof e2b.CommandExitError, String(error))
  assert.deepEqual([error.exitCode, error.stdout, error.stderr, error.error], [3, 'before\n', 'why\n', 'exit status 3'])
})

check('a missing program is exit code 127', async () => {
  const s = await shared()
  const error = await failure(s.commands.run('no-such-program-here'))
  assert.ok(error instanceof e2b.CommandExitError)
  assert.equal(error.exitCode, 127)
  assert.match(error.stderr, /not found/)
})

check('a program that a signal ended is no success', async () => {
  const s = await shared()
  const error = await failure(s.commands.run('kill -9 $$'))
  assert.ok(error instanceof e2b.CommandExitError, String(error))
  assert.notEqual(error.exitCode, 0)
  assert.match(error.error, /killed/)
})

check('a command is one shell line, with quotes, pipes and substitutions', async () => {
  const s = await shared()
  const r = await s.commands.run(`printf '%s|' "a b" 'c"d' $(echo e f) | tr a-z A-Z`)
  assert.equal(r.stdout, 'A B|C"D|E|F|')
})

check('output keeps characters of several bytes whole', async () => {
  const s = await shared()
  const r = await s.commands.run(`python3 -c 'print("é漢🙂" * 30000, end="")'`)
  assert.equal(r.stdout, 'é漢🙂'.repeat(30000))
})

check('cwd', async () => {
  const s = await shared()
  assert.equal((await s.commands.run('pwd', { cwd: '/tmp' })).stdout, '/tmp\n')
  assert.equal((await s.commands.run('pwd')).stdout, '/home/user\n')
})

check('a cwd that is not there is an InvalidArgumentError', async () => {
  const s = await shared()
  const error = await failure(s.commands.run('true', { cwd: '/no/such/place' }))
  assert.ok(error instanceof e2b.InvalidArgumentError, String(error))
  assert.match(error.message, /does not exist/)
})

check('user: the default and root', async () => {
  const s = await shared()
  assert.equal((await s.commands.run('id -un; echo $HOME')).stdout, 'user\n/home/user\n')
  assert.equal((await s.commands.run('id -u; echo $HOME', { user: 'root' })).stdout, '0\n/root\n')
})

check('an unknown user is an AuthenticationError', async () => {
  const s = await shared()
  const error = await failure(s.commands.run('true', { user: 'nobody-like-that' }))
  assert.ok(error instanceof e2b.AuthenticationError, String(error))
})

check('envs: of the command, over those of the sandbox', async () => {
  const s = await shared()
  const r = await s.commands.run('echo "$A|$B"', { envs: { A: 'x y=z', B: 'é"\'' } })
  assert.equal(r.stdout, 'x y=z|é"\'\n')
  assert.equal((await s.commands.run('echo "$A|"')).stdout, '|\n')
})

check('a time limit ends the command with a TimeoutError', async () => {
  const s = await shared()
  const error = await failure(s.commands.run('echo $$ > limit.pid; sleep 1000', { timeoutMs: 500 }))
  assert.ok(error instanceof e2b.TimeoutError, String(error))
  const pid = Number(await s.files.read('limit.pid'))
  await until('it is killed', async () => !(await s.commands.list()).some((p) => p.pid === pid))
})

check('timeoutMs 0 is no limit', async () => {
  const s = await shared()
  assert.equal((await s.commands.run('sleep 1.2; echo there', { timeoutMs: 0 })).stdout, 'there\n')
})

check('a background command is a handle to wait on', async () => {
  const s = await shared()
  const h = await s.commands.run('echo one; sleep 0.2; echo two; exit 0', { background: true })
  assert.ok(h.pid > 0)
  assert.equal(h.exitCode, undefined)
  assert.equal((await h.wait()).stdout, 'one\ntwo\n')
  assert.equal(h.exitCode, 0)
})

check('wait on a failed background command throws, each time', async () => {
  const s = await shared()
  const h = await s.commands.run('exit 9', { background: true })
  for (let i = 0; i < 2; i++) {
    const error = await failure(h.wait())
    assert.ok(error instanceof e2b.CommandExitError)
    assert.equal(error.exitCode, 9)
  }
})

check('list shows what runs, with its command and directory', async () => {
  const s = await shared()
  const h = await s.commands.run('sleep 600', { background: true, cwd: '/tmp', timeoutMs: 0 })
  const mine = (await s.commands.list()).find((p) => p.pid === h.pid)
  assert.equal(mine.cmd, '/bin/bash')
  assert.deepEqual(mine.args, ['-l', '-c', 'sleep 600'])
  assert.equal(mine.cwd, '/tmp')
  assert.equal(await h.kill(), true)
  await until('it is gone from the list', async () => !(await s.commands.list()).some((p) => p.pid === h.pid))
})

check('kill ends a command; a second kill finds none', async () => {
  const s = await shared()
  const h = await s.commands.run('sleep 600', { background: true, timeoutMs: 0 })
  assert.equal(await s.commands.kill(h.pid), true)
  const error = await failure(h.wait())
  assert.ok(error instanceof e2b.CommandExitError, String(error))
  assert.match(error.error, /killed/)
  assert.equal(await s.commands.kill(h.pid), false)
})

check('connect follows a running command', async () => {
  const s = await shared()
  const h = await s.commands.run('while [ ! -e go ]; do sleep 0.05; done; echo late; exit 4', { background: true })
  const again = await s.commands.connect(h.pid)
  assert.equal(again.pid, h.pid)
  await s.files.write('go', '')
  const error = await failure(again.wait())
  assert.deepEqual([error.exitCode, error.stdout], [4, 'late\n'])
  assert.equal((await failure(h.wait())).exitCode, 4)
})

check('connect to a command that has just ended tells its end', async () => {
  const s = await shared()
  const h = await s.commands.run('exit 5', { background: true })
  assert.equal((await failure(h.wait())).exitCode, 5)
  const again = await s.commands.connect(h.pid)
  assert.equal((await failure(again.wait())).exitCode, 5)
})

check('connect to no process is a NotFoundError', async () => {
  const s = await shared()
  const error = await failure(s.commands.connect(999999))
  assert.ok(error instanceof e2b.NotFoundError, String(error))
})

check('disconnect leaves the command running', async () => {
  const s = await shared()
  const h = await s.commands.run('sleep 0.3; echo done > left-alone; sleep 600', { background: true, timeoutMs: 0 })
  await h.disconnect()
  await until('it went on', () => s.files.exists('left-alone'))
  assert.equal(await s.commands.kill(h.pid), true)
})

check('commands run side by side', async () => {
  const s = await shared()
  const rs = await Promise.all(Array.from({ length: 20 }, (_, i) => s.commands.run(`sleep 0.1; echo ${i}`)))
  assert.deepEqual(rs.map((r) => r.stdout), Array.from({ length: 20 }, (_, i) => `${i}\n`))
})
