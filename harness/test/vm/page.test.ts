import { mkdir, writeFile } from 'node:fs/promises';
import { join } from 'node:path';
import test from 'ava';
import { type Browser, chromium } from 'playwright-core';
import { findProgram } from '../../host/tools.js';
import { makeReport } from '../../report/report.js';
import { tempDir } from '../support/files.js';
import { sampleRun } from '../support/sample-run.js';

let browser: Browser;
test.before(async () => {
  const executablePath = (await findProgram('chromium')) ?? 'chromium';
  const args = [
    '--no-sandbox',
    '--disable-gpu',
    '--disable-background-networking',
    '--disable-component-update',
    '--disable-sync',
    '--no-first-run',
  ];
  browser = await chromium.launch({ executablePath, args });
});
test.after.always(() => browser?.close());

for (const [name, width, height, colorScheme] of [
  ['desktop', 1280, 900, 'light'],
  ['phone', 390, 844, 'dark'],
] as const)
  test.serial(
    `the page at ${name} width: fits, fetches nothing, says everything without colour, works by keyboard`,
    async (t) => {
      const dir = await tempDir(t);
      const run = sampleRun();
      const folder = join(dir, run.cells[0]?.trials[0]?.folder ?? '');
      await mkdir(folder, { recursive: true });
      await writeFile(join(folder, 'serial.log'), 'one\r\ntwo\r\nthe panic line\r\nfour\r\n');
      await writeFile(join(dir, 'report.html'), await makeReport(run, 'html', dir, dir));
      const page = await browser.newPage({ viewport: { width, height }, colorScheme });
      const asked: string[] = [];
      const complaints: string[] = [];
      page.on('request', (request) => asked.push(request.url()));
      page.on('console', (message) => complaints.push(message.text()));
      page.on('dialog', (dialog) => complaints.push(dialog.message()));
      await page.goto(`file://${join(dir, 'report.html')}`);
      t.deepEqual(asked, [`file://${join(dir, 'report.html')}`]);
      t.deepEqual(complaints, []);
      const [scroll, inner] = (await page.evaluate('[document.documentElement.scrollWidth, innerWidth]')) as [
        number,
        number,
      ];
      t.true(scroll <= inner, `${scroll} > ${inner}`);
      // Each verdict as a word and a sign.
      const cells = await page.locator('#matrix td a').allInnerTexts();
      t.true(
        cells.some((text) => /✖ panics\s*5\/5/.test(text)),
        cells.join(),
      );
      t.true(cells.some((text) => /✔ clean/.test(text)));
      t.true(cells.some((text) => /∅ void/.test(text)));
      t.true(cells.some((text) => /‼ panics\s*1\/1 expected clean/.test(text)));
      t.is(await page.locator('mark').first().textContent(), '    3  the panic line');
      t.is(await page.locator('svg path.curve').count(), 2);
      t.regex(
        await page.locator('#times').innerText(),
        /No boot panicked: compound-head xfs-loopback \(3 boots\)/,
      );
      // The skip link, then what needs a look: Enter leads to the cell.
      await page.keyboard.press('Tab');
      t.is(await page.evaluate('document.activeElement.className'), 'skip');
      await page.keyboard.press('Tab');
      await page.keyboard.press('Enter');
      t.regex(page.url(), /#cell-debian-6_2e_1_2b_pageslab_2b_xfs-loopback$/);
      const paper = (await page.evaluate('getComputedStyle(document.body).backgroundColor')) as string;
      t.is(paper, colorScheme === 'dark' ? 'rgb(21, 24, 27)' : 'rgb(255, 255, 255)');
      await page.close();
    },
  );
