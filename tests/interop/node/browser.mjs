// jose in a page of another origin than the JWK Set: what it fetches goes through CORS and the HTTP cache
// of a Chromium. Each verifier is a page with a cache of its own.
import { createHash, X509Certificate } from 'node:crypto'
import { readFileSync } from 'node:fs'
import { createServer } from 'node:http'
import { dirname, join } from 'node:path'
import { fileURLToPath } from 'node:url'
import { chromium } from 'playwright-core'
import { serve } from './lines.mjs'

const library = dirname(fileURLToPath(import.meta.resolve('jose')))
const page = `<!doctype html><title>verifier</title><script type="module">
import { createRemoteJWKSet, jwtVerify } from '/jose/index.js'
globalThis.begin = (url, options, issuer) => {
  const keys = createRemoteJWKSet(new URL(url), options)
  globalThis.verify = async (token) => {
    try {
      return { claims: (await jwtVerify(token, keys, { issuer })).payload }
    } catch (error) {
      return { name: error.name, message: error.message }
    }
  }
}
</script>`

const origin = await new Promise((resolve) => {
  const server = createServer(({ url }, response) => {
    const script = url.startsWith('/jose/') && join(library, url.slice('/jose/'.length))
    response.setHeader('content-type', script ? 'text/javascript' : 'text/html')
    response.end(script ? readFileSync(script) : page)
  })
  server.listen(0, '127.0.0.1', () => resolve(`http://127.0.0.1:${server.address().port}/`))
})

// Chromium trusts jwksd's certificate by its key; what it was told to overlook would not be cached.
const { publicKey } = new X509Certificate(readFileSync(process.env.INTEROP_CERTIFICATE))
const spki = createHash('sha256').update(publicKey.export({ type: 'spki', format: 'der' }))
const browser = await chromium.launch({
  executablePath: process.env.CHROMIUM ?? '/usr/bin/chromium',
  args: ['--no-sandbox', '--disable-gpu', '--disable-quic',
    `--ignore-certificate-errors-spki-list=${spki.digest('base64')}`],
})
process.stdin.once('end', async () => {
  await browser.close()
  process.exit()
})

async function open(issuer, url, ttl) {
  const page = await (await browser.newContext()).newPage()
  await page.goto(origin)
  await page.waitForFunction('globalThis.begin')
  await page.evaluate(([url, options, issuer]) => globalThis.begin(url, options, issuer),
    [url, ttl === null ? {} : { cacheMaxAge: ttl * 1000 }, issuer])
  return page
}

serve(({ issuer, url, ttl }) => {
  const opened = open(issuer, url, ttl)
  return async (token) => {
    const answer = await (await opened).evaluate((token) => globalThis.verify(token), token)
    if (!answer.claims) throw answer
    return answer.claims
  }
})
