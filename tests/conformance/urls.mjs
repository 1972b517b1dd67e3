// Signed URLs, as a browser or curl uses them: no header names the sandbox.
import assert from 'node:assert/strict'

import { check, Sandbox, shared, withSandbox } from './sdk.mjs'

check('a download URL serves the file', async () => {
  const s = await shared()
  await s.files.write('url dir/a b é.txt', 'by url')
  const answer = await fetch(await s.downloadUrl('url dir/a b é.txt'))
  assert.equal(answer.status, 200)
  assert.equal(await answer.text(), 'by url')
})

check('a download URL with an end', async () => {
  const s = await shared()
  await s.files.write('timed', 'x')
  assert.equal((await fetch(await s.downloadUrl('timed', { useSignatureExpiration: 60 }))).status, 200)
  assert.equal((await fetch(await s.downloadUrl('timed', { useSignatureExpiration: -60 }))).status, 401)
})

check('a changed download URL is refused', async () => {
  const s = await shared()
  await s.files.write('mine', 'x')
  const url = new URL(await s.downloadUrl('mine'))
  url.searchParams.set('path', '/etc/passwd')
  assert.equal((await fetch(url)).status, 401)
})

check('a download URL does not upload', async () => {
  const s = await shared()
  const form = new FormData()
  form.append('file', new Blob(['x']), 'mine')
  assert.equal((await fetch(await s.downloadUrl('mine'), { method: 'POST', body: form })).status, 401)
})

check('an upload URL takes a form', async () => {
  const s = await shared()
  const form = new FormData()
  form.append('file', new Blob(['uploaded']), 'ignored-name')
  const answer = await fetch(await s.uploadUrl('up/loaded'), { method: 'POST', body: form })
  assert.equal(answer.status, 200)
  assert.equal((await answer.json())[0].path, '/home/user/up/loaded')
  assert.equal(await s.files.read('up/loaded'), 'uploaded')
})

check('an upload URL of another user', async () => {
  const s = await shared()
  const form = new FormData()
  form.append('file', new Blob(['r']), 'f')
  const url = await s.uploadUrl('/opt/url-root', { user: 'root', useSignatureExpiration: 60 })
  assert.equal((await fetch(url, { method: 'POST', body: form })).status, 200)
  assert.equal((await s.commands.run('stat -c %U /opt/url-root')).stdout, 'root\n')
})

check('a URL dies with its sandbox', async () => {
  let url
  await withSandbox({}, async (s) => {
    await s.files.write('f', 'x')
    url = await s.downloadUrl('f')
    assert.equal((await fetch(url)).status, 200)
  })
  assert.ok([401, 502].includes((await fetch(url)).status))
})

check('getHost names port and sandbox', async () => {
  const s = await shared()
  assert.ok((await Sandbox.connect(s.sandboxId)).getHost(3000).startsWith(`3000-${s.sandboxId}.`))
})
