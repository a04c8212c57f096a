import { open } from 'node:fs/promises';

const INTERVAL_MS = 40;

/**
 * Hands on what is appended to a file, from its first byte, as it comes, but no more than `most` bytes. Disposing reads what is left and
 * stops: whoever writes should be gone by then.
 */
export async function followFile(
  path: string,
  most: number,
  onChunk: (chunk: Buffer) => void,
): Promise<AsyncDisposable> {
  const file = await open(path, 'r');
  const buffer = Buffer.alloc(64 * 1024);
  let position = 0;
  let stopped = false;
  let wake: () => void = () => {};
  const drain = async (): Promise<void> => {
    while (position < most) {
      const { bytesRead } = await file.read(buffer, 0, buffer.length, position);
      if (bytesRead === 0) return;
      position += bytesRead;
      onChunk(Buffer.from(buffer.subarray(0, bytesRead)));
    }
  };
  const pump = async (): Promise<void> => {
    while (!stopped) {
      await drain();
      await new Promise<void>((resolve) => {
        wake = resolve;
        setTimeout(resolve, INTERVAL_MS);
      });
    }
    await drain();
  };
  const pumping = pump();
  // Told when it is disposed of; until then nobody listens.
  pumping.catch(() => {});
  return {
    async [Symbol.asyncDispose]() {
      stopped = true;
      wake();
      await pumping.finally(() => file.close());
    },
  };
}
