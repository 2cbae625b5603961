// Shows the page of key directories of several kinds in Chromium, and checks what a person would
// see, or hear, or trip over.
//
//   NODE_PATH=... CHROMIUM=... node check.mjs BINARY DIRECTORY-FOR-SCREENSHOTS [SCENE]
import assert from 'node:assert/strict';
import { spawn } from 'node:child_process';
import { mkdirSync, mkdtempSync, rmSync } from 'node:fs';
import { createRequire } from 'node:module';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import * as directories from './keys.mjs';

const require = createRequire(import.meta.url);
const { chromium } = require('playwright-core');
const axe = require('axe-core').source;

const [binary, shots, only] = process.argv.slice(2);
mkdirSync(shots, { recursive: true });
const scratch = mkdtempSync(join(tmpdir(), 'page-'));
const PATIENCE = 60_000;

const VIEWS = {
  desktop: { viewport: { width: 1280, height: 800 } },
  dark: { viewport: { width: 1280, height: 800 }, colorScheme: 'dark' },
  phone: { viewport: { width: 360, height: 740 }, deviceScaleFactor: 2, isMobile: true },
  'phone-dark': { viewport: { width: 360, height: 740 }, colorScheme: 'dark' },
};

// Starts the daemon on a directory, and waits until its log says where it listens.
async function start(keys) {
  const child = spawn(binary, [
    'serve', '--keys', keys, '--listen', '127.0.0.1:0', '--ops-listen', '127.0.0.1:0', '--log-format', 'json',
  ], { stdio: ['ignore', 'ignore', 'pipe'] });
  let log = '';
  child.stderr.on('data', (text) => { log += text; });
  const address = (name) => log.match(new RegExp(`"listener":"${name}","address":"([^"]+)"`))?.[1];
  await until(`the daemon listens: ${log}`, () => child.exitCode === null && address('ops') && address('public'));
  return { child, ops: `http://${address('ops')}`, public: `http://${address('public')}` };
}

async function until(what, condition) {
  for (const end = Date.now() + PATIENCE; Date.now() < end; ) {
    const found = await condition();
    if (found) return found;
    await new Promise((resolve) => setTimeout(resolve, 50));
  }
  assert.fail(`never happened: ${what}`);
}

const status = async (daemon) => (await fetch(`${daemon.ops}/status`)).json();

// One page in one view; whatever it complains of is an error.
async function look(browser, daemon, name, view) {
  const context = await browser.newContext({ ...VIEWS[view], reducedMotion: 'reduce' });
  const page = await context.newPage();
  page.setDefaultTimeout(PATIENCE);
  const complaints = [];
  page.on('console', (message) => complaints.push(`${message.type()}: ${message.text()}`));
  page.on('pageerror', (error) => complaints.push(`error: ${error.message}`));
  page.on('dialog', (dialog) => { complaints.push(`dialog: ${dialog.message()}`); dialog.dismiss(); });
  page.on('request', (request) => {
    const url = request.url();
    if (url !== `${daemon.ops}/` && !url.endsWith('/favicon.ico')) complaints.push(`asks for ${url}`);
  });
  await page.addInitScript(() => {
    globalThis.violations = [];
    addEventListener('securitypolicyviolation', (event) =>
      globalThis.violations.push(`${event.effectiveDirective} ${event.blockedURI}`));
  });
  const answer = await page.goto(`${daemon.ops}/`);
  const policy = answer.headers()['content-security-policy'];
  assert.match(policy, /^default-src 'none'; style-src 'sha256-[A-Za-z0-9+/=]+'; base-uri 'none'; form-action 'none'; frame-ancestors 'none'$/);
  await page.evaluate(() => { for (const one of document.querySelectorAll('details')) one.open = true; });
  await page.screenshot({ path: join(shots, `${name}-${view}.png`), fullPage: true });
  const seen = await page.evaluate(() => ({
    violations: globalThis.violations,
    width: document.documentElement.scrollWidth,
    // What reaches beyond the screen, so that a failure names it.
    beyond: [...document.querySelectorAll('body *:not(svg *)')]
      .filter((element) => element.getBoundingClientRect().right > innerWidth + 0.5 && !element.closest('.unseen, thead, .label'))
      .map((element) => element.outerHTML.slice(0, 80)),
    scripts: document.querySelectorAll('script, img, iframe, object, embed, link, base, form').length,
    handlers: [...document.querySelectorAll('*')].flatMap((element) => element.getAttributeNames())
      .filter((attribute) => /^(on|style$)/.test(attribute)),
    strange: [...document.querySelectorAll('a')].map((link) => link.getAttribute('href'))
      .filter((href) => !/^(#|\/|http:\/\/127\.0\.0\.1:\d+\/)/.test(href)),
    ground: getComputedStyle(document.body).backgroundColor,
    ink: getComputedStyle(document.body).color,
  }));
  // The favicon is refused before it is asked for, by the policy.
  const grave = complaints.filter((complaint) => !complaint.includes('favicon.ico'));
  assert.deepEqual(grave, [], 'the console is empty, and nothing is fetched');
  assert.deepEqual(seen.violations.filter((violation) => !violation.includes('favicon')), []);
  assert.deepEqual(seen.beyond, [], 'nothing reaches beyond the screen');
  assert.ok(seen.width <= VIEWS[view].viewport.width, `the page is ${seen.width} px wide`);
  assert.equal(seen.scripts, 0, 'no element that could do or fetch anything');
  assert.deepEqual(seen.handlers, []);
  assert.deepEqual(seen.strange, []);
  return { page, context, ground: seen.ground, ink: seen.ink };
}

async function accessible(page) {
  // By the protocol of the browser's own tools, which the page's policy does not bind.
  await page.evaluate(axe);
  const found = await page.evaluate(() => globalThis.axe.run(document, {
    runOnly: ['wcag2a', 'wcag2aa', 'wcag21a', 'wcag21aa', 'wcag22aa', 'best-practice'],
  }));
  const broken = found.violations.map(({ id, nodes }) => `${id}: ${nodes.map((node) => `${node.html} ${node.failureSummary}`).join('\n')}`);
  assert.deepEqual(broken, []);
  assert.ok(found.passes.some((rule) => rule.id === 'color-contrast'), 'contrast was looked at');
  return found.passes.length;
}

// The brightness of "rgb(r, g, b)", 0 to 255.
const brightness = (colour) => colour.match(/\d+/g).slice(0, 3).map(Number).reduce((a, b) => a + b) / 3;

const SCENES = {
  async everyday(page, daemon) {
    const known = await status(daemon);
    const drawn = await page.evaluate(() => [...document.querySelectorAll('.lives li')].map((life) => ({
      kid: life.querySelector('code').textContent,
      phases: [...life.querySelectorAll('rect')].map((rect) => rect.getAttribute('class')),
      words: life.querySelector('svg').getAttribute('aria-label'),
      now: life.querySelectorAll('line.nowline').length,
      next: life.querySelectorAll('line.next').length,
      safe: life.querySelectorAll('circle.safe').length,
    })));
    const life = (kid) => drawn.find((life) => life.kid === kid);
    assert.deepEqual(life('client-2026-09').phases, ['grace']);
    assert.deepEqual(life('client-2026-10').phases, ['active', 'grace']);
    assert.deepEqual(life('client-2026-11').phases, ['announced', 'active']);
    assert.deepEqual(life('client-2026-12').phases, ['announced', 'active']);
    assert.equal(life('human-ended'), undefined, 'what is over is not drawn');
    assert.match(life('client-2026-11').words, /^announced from \S+ to \S+, active from \S+ to \S+, safe to sign with from \S+$/);
    assert.ok(drawn.every((life) => life.now === 1 && life.next === 1));
    const text = await page.innerText('main');
    for (const kid of known.keys.map((key) => key.keyId)) assert.ok(text.includes(kid), kid);
    for (const { keyId } of known.current) assert.ok((await page.innerText('[aria-labelledby=signers]')).includes(keyId));
    const refused = await page.innerText('[aria-labelledby=refused]');
    assert.equal(known.refused.length, 2);
    for (const { file, remedy } of known.refused) assert.ok(refused.includes(file) && refused.includes(remedy), file);
    assert.match(await page.innerText('[aria-labelledby=timeline]'), /Next change in .*human-b becomes retired/);
    // The link leads to the key set whose digest and size are told.
    const served = known.documents[0];
    const link = await page.getAttribute('.documents a', 'href');
    assert.equal(link, `${daemon.public}/.well-known/jwks.json`);
    const set = await fetch(link, { headers: { 'accept-encoding': 'identity' } });
    assert.equal(set.headers.get('etag'), served.etag);
    assert.equal((await set.arrayBuffer()).byteLength, served.bytes);
    const told = await page.innerText('.documents li');
    assert.ok(told.includes(`${served.bytes} bytes`) && told.includes(served.etag.replaceAll('"', '')));
    // What a screen reader goes by.
    for (const landmark of ['banner', 'main', 'contentinfo']) assert.equal(await page.getByRole(landmark).count(), 1, landmark);
    const headings = await page.getByRole('heading').allInnerTexts();
    for (const heading of ['jwksd', 'Needs attention', 'Current signers', 'Timeline', 'Keys', 'Refused files', 'Health']) {
      assert.ok(headings.includes(heading), heading);
    }
    assert.equal(await page.getByRole('table').count(), 2);
    assert.equal(await page.getByRole('rowheader').count(), known.keys.length, 'a row for each key, as a table too');
    assert.equal(await page.getByRole('img').count(), drawn.length);
    assert.equal(await page.getAttribute('html', 'lang'), 'en');
    return `${drawn.length} lives drawn, ${known.keys.length} keys listed, ${known.refused.length} files refused with cause and remedy, the link leads to the set`;
  },

  async hostile(page, daemon) {
    const known = await status(daemon);
    const text = (await page.innerText('main')).replaceAll('\n', '');
    for (const { keyId } of known.keys) assert.ok(text.includes(keyId.trim()), `${keyId} is shown as it is`);
    for (const shown of ['<script>alert("file")', '"><img src=x onerror=alert(2)>', 'javascript:alert(4)', '&lt;b&gt;']) {
      assert.ok(text.includes(shown), `${shown} is shown as it is`);
    }
    assert.ok(!text.includes('\u202e'), 'nothing turns the direction of the text');
    assert.equal(known.refused.length, 9);
    return `${known.refused.length} hostile file names and ${known.keys.length} hostile kids are text, and fit`;
  },

  async forty(page) {
    assert.equal(await page.locator('.lives li').count(), 40);
    return '40 lives drawn';
  },

  async empty(page, daemon) {
    assert.match(await page.innerText('.pill'), /^not ready$/);
    const timeline = await page.innerText('[aria-labelledby=timeline]');
    assert.match(timeline, /No key is known\. Put a key pair into .* jwksd keys issue/s);
    assert.equal((await fetch(`${daemon.ops}/readyz`)).status, 503);
    return 'says that there is no key, and what to do';
  },
};

const browser = await chromium.launch({
  executablePath: process.env.CHROMIUM,
  args: ['--no-sandbox', '--disable-gpu', '--disable-quic', '--no-first-run', '--disable-background-networking', '--disable-component-update', '--disable-sync'],
});
const children = [];
try {
  for (const [name, check] of Object.entries(SCENES)) {
    if (only && name !== only) continue;
    const keys = join(scratch, name);
    directories[name](keys);
    const daemon = await start(keys);
    children.push(daemon.child);
    await until('the keys are read', async () => (await status(daemon)).lastGoodScan);
    const grounds = {};
    for (const view of Object.keys(VIEWS)) {
      const { page, context, ground, ink } = await look(browser, daemon, name, view);
      const is_dark = view.includes('dark');
      assert.ok(is_dark ? brightness(ground) < 60 && brightness(ink) > 180 : brightness(ground) > 220 && brightness(ink) < 60,
        `${view}: ${ink} on ${ground}`);
      grounds[view] = ground;
      const said = await check(page, daemon);
      const rules = await accessible(page);
      console.log(`${name}, ${view}: ${said}; axe-core: ${rules} rules hold, none is broken`);
      await context.close();
    }
    assert.notEqual(grounds.desktop, grounds.dark);
    daemon.child.kill();
  }
} finally {
  for (const child of children) child.kill();
  await browser.close();
  rmSync(scratch, { recursive: true, force: true });
}
console.log(`page: everything holds; screenshots are in ${shots}`);
