import { catalogue, ensureKernel, fetchKernel, presentKernel } from '../../kernel/catalogue.js';
import { debugVmlinux, ensureDebugInfo } from '../../kernel/debug-info.js';
import { configOption } from '../../kernel/kernel.js';
import { printResult, progressFor, table } from '../context.js';

/** `loopanic kernel ls`: the catalogue, and what of it is on this host. */
export async function kernelList(args: { json: boolean }): Promise<number> {
  const rows = await Promise.all(
    Object.entries(await catalogue()).map(async ([id, entry]) => {
      const kernel = await presentKernel(id);
      return {
        id,
        origin: entry.origin,
        summary: entry.summary,
        present: kernel !== null,
        release: kernel?.release ?? null,
        version: kernel?.version ?? null,
        debugInfo: kernel ? (await debugVmlinux(kernel)) !== null : null,
        hardenedUsercopy: kernel ? (await configOption(kernel, 'HARDENED_USERCOPY')) === 'y' : null,
      };
    }),
  );
  printResult(args.json, rows, () =>
    table([
      ['KERNEL', 'RELEASE', 'VERSION', 'HARDENED USERCOPY', 'DEBUG INFO', 'SUMMARY'],
      ...rows.map((row) => [
        row.id,
        row.release ?? 'not fetched',
        row.version ?? '-',
        yesNo(row.hardenedUsercopy),
        yesNo(row.debugInfo),
        row.summary,
      ]),
    ]),
  );
  return 0;
}

/** `loopanic kernel fetch ID`: the newest version that the catalogue's suite has. */
export async function kernelFetch(args: { id: string; json: boolean }): Promise<number> {
  const kernel = await fetchKernel(args.id, progressFor());
  const { id, release, version, packages } = kernel;
  printResult(args.json, { id, release, version, packages }, () => [`${id}: ${release} (${version})`]);
  return 0;
}

/** `loopanic kernel debuginfo ID`: what the analysis of dumps needs. */
export async function kernelDebugInfo(args: { id: string; json: boolean }): Promise<number> {
  const kernel = await ensureKernel(args.id, progressFor());
  const vmlinux = await ensureDebugInfo(kernel, progressFor());
  const { id, release, version } = kernel;
  printResult(args.json, { id, release, version, vmlinux }, () => [`${id}: ${vmlinux}`]);
  return 0;
}

function yesNo(value: boolean | null): string {
  if (value === null) return '-';
  return value ? 'yes' : 'no';
}
