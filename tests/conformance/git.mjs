// The SDK's git helpers: commands that it composes itself.
import assert from 'node:assert/strict'

import { check, shared } from './sdk.mjs'

check('git: init, add, commit, status, branches', async () => {
  const s = await shared()
  await s.git.init('repo', { initialBranch: 'main' })
  await s.git.configureUser('A', 'a@example.com', { scope: 'local', path: 'repo' })
  await s.files.write('repo/f', 'x')
  await s.git.add('repo')
  await s.git.commit('repo', 'first')
  const status = await s.git.status('repo')
  assert.equal(status.currentBranch, 'main')
  assert.equal(status.isClean, true)
  await s.git.createBranch('repo', 'next')
  assert.deepEqual((await s.git.branches('repo')).branches.sort(), ['main', 'next'])
})
