import { ensureKernel } from '../../kernel/catalogue.js';
import { ensureModule, variants } from '../../module/module.js';
import { printResult, progressFor, table } from '../context.js';

/** `loopanic module ls`: what can stand in for libiscsi_tcp.ko. */
export async function moduleList(args: { json: boolean }): Promise<number> {
  const known = Object.entries(await variants()).map(([id, { summary }]) => ({ id, summary }));
  const rows = [{ id: 'stock', summary: "the kernel's own module, as it is" }, ...known];
  printResult(args.json, rows, () =>
    table([['MODULE', 'SUMMARY'], ...rows.map((row) => [row.id, row.summary])]),
  );
  return 0;
}

/** `loopanic module build --kernel ID [NAME...]`: builds variants (all of them if none is named) for one kernel. */
export async function moduleBuild(args: { kernel: string; names: string[]; json: boolean }): Promise<number> {
  const progress = progressFor();
  const names = args.names.length > 0 ? args.names : Object.keys(await variants());
  const work = async () => {
    const kernel = await ensureKernel(args.kernel, progress);
    const built = [];
    for (const name of names) {
      const { id, file, info } = await ensureModule(name, kernel, progress);
      built.push({ id, kernel: kernel.id, release: kernel.release, file, ...info });
    }
    return built;
  };
  const built = await work();
  printResult(args.json, built, () =>
    table(built.map((row) => [row.id, row.kernel, row.srcversion ?? row.buildId ?? '-', row.file])),
  );
  return 0;
}
