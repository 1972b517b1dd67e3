// Terminals.
import assert from 'node:assert/strict'

import { check, e2b, failure, shared, until } from './sdk.mjs'

const bytes = (text) => new TextEncoder().encode(text)

async function terminal(s, opts) {
  const seen = { text: '' }
  const decoder = new TextDecoder()
  const handle = await s.pty.create({
    cols: 91,
    rows: 33,
    timeoutMs: 0,
    onData: (data) => void (seen.text += decoder.decode(data, { stream: true })),
    ...opts,
  })
  const type = (line) => s.pty.sendInput(handle.pid, bytes(line))
  const shows = (text) => until(`the terminal shows ${text}`, () => seen.text.includes(text))
  return { handle, type, shows, seen }
}

check('a terminal is one: size, name, colours', async () => {
  const s = await shared()
  const t = await terminal(s)
  await t.type('stty size; test -t 0 && echo is-a-"tty"; echo $TERM\n')
  await t.shows('33 91')
  await t.shows('is-a-tty')
  await t.shows('xterm-256color')
  assert.equal(await t.handle.kill(), true)
})

check('resize', async () => {
  const s = await shared()
  const t = await terminal(s)
  await t.shows('$')
  await s.pty.resize(t.handle.pid, { cols: 50, rows: 20 })
  await t.type('stty size\n')
  await t.shows('20 50')
  await t.handle.kill()
})

check('a terminal ends with its shell, exit code and all', async () => {
  const s = await shared()
  const t = await terminal(s)
  await t.type('exit 7\n')
  const error = await failure(t.handle.wait())
  assert.ok(error instanceof e2b.CommandExitError, String(error))
  assert.equal(error.exitCode, 7)
})

check('a terminal of a user, a directory, an environment', async () => {
  const s = await shared()
  const t = await terminal(s, { user: 'root', cwd: '/tmp', envs: { MARK: 'seen-here' } })
  await t.type('echo "$(id -u):$(pwd):$MARK"\n')
  await t.shows('0:/tmp:seen-here')
  await t.handle.kill()
})

check('Ctrl-C reaches the program', async () => {
  const s = await shared()
  const t = await terminal(s)
  await t.type('sleep 4242; echo status-$?\n')
  await until('sleep runs', async () => (await s.commands.run('pgrep -x sleep -a || true')).stdout.includes('sleep 4242'))
  await t.type('\x03')
  await t.type('echo after-"wards"\n')
  await t.shows('after-wards')
  await t.handle.kill()
})

check('connect to a terminal', async () => {
  const s = await shared()
  const t = await terminal(s)
  let text = ''
  const again = await s.pty.connect(t.handle.pid, { onData: (data) => void (text += Buffer.from(data)) })
  assert.equal(again.pid, t.handle.pid)
  await t.type('echo both-"see"\n')
  await t.shows('both-see')
  await until('the second sees it', () => text.includes('both-see'))
  assert.equal(await s.pty.kill(t.handle.pid), true)
  assert.match((await failure(t.handle.wait())).error, /killed/)
  assert.equal(await s.pty.kill(t.handle.pid), false)
})
