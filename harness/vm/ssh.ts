import { createPrivateKey } from 'node:crypto';
import ssh2, { type Client, type ClientChannel } from 'ssh2';
import { firstLine, InfraError } from '../base/errors.js';

/** Keys of one run: the user's, and the guest's own in dropbear's format. Nothing of them outlives the run but the user's key file. */
export interface SshKeys {
  /** OpenSSH private key for root in the guest. */
  privateKey: string;
  /** Line for authorized_keys. */
  publicKey: string;
  /** The guest's host key as a file of dropbear's, and of OpenSSH's. */
  hostKey: { dropbear: Buffer; openssh: string };
  /** The host key's public blob, as ssh2 presents it to a verifier. */
  hostPublicBlob: Buffer;
}

/** Makes fresh ed25519 keys for user and guest. */
export function makeSshKeys(): SshKeys {
  const user = ssh2.utils.generateKeyPairSync('ed25519', { comment: 'loopanic' });
  const host = ssh2.utils.generateKeyPairSync('ed25519', { comment: 'loopanic guest' });
  const parsed = ssh2.utils.parseKey(host.private);
  if (parsed instanceof Error) throw parsed;
  const jwk = createPrivateKey(parsed.getPrivatePEM()).export({ format: 'jwk' });
  const [seed, point] = [Buffer.from(jwk.d ?? '', 'base64url'), Buffer.from(jwk.x ?? '', 'base64url')];
  const type = Buffer.from('ssh-ed25519');
  return {
    privateKey: user.private,
    publicKey: user.public,
    // dropbear's own format: string type, string (seed || point). Source: dropbear's ed25519.c, buf_put_ed25519_priv_key.
    hostKey: {
      dropbear: Buffer.concat([sshString(type), sshString(Buffer.concat([seed, point]))]),
      openssh: host.private,
    },
    hostPublicBlob: Buffer.concat([sshString(type), sshString(point)]),
  };
}

function sshString(content: Buffer): Buffer {
  const length = Buffer.alloc(4);
  length.writeUInt32BE(content.length);
  return Buffer.concat([length, content]);
}

/** A connection to the guest as root, which has shown the run's host key. */
export class GuestShell implements Disposable {
  readonly #client: Client;

  private constructor(client: Client) {
    this.#client = client;
  }

  /** Connects to a guest whose ssh server is up. Handshakes take seconds under TCG; `timeoutSeconds` bounds one. */
  static connect(port: number, keys: SshKeys, timeoutSeconds = 30): Promise<GuestShell> {
    const client = new ssh2.Client();
    return new Promise((resolve, reject) => {
      client.once('ready', () => resolve(new GuestShell(client)));
      client.on('error', (error) =>
        reject(
          new InfraError('ssh-failed', `the guest's ssh server did not answer: ${firstLine(error)}`, error),
        ),
      );
      client.connect({
        host: '127.0.0.1',
        port,
        username: 'root',
        privateKey: keys.privateKey,
        hostVerifier: (key: Buffer) => key.equals(keys.hostPublicBlob),
        readyTimeout: timeoutSeconds * 1000,
      });
    });
  }

  /** Gives this terminal (or this pipe) a shell in the guest. Resolves when the shell or the connection ends. */
  interactive(): Promise<void> {
    const { stdin, stdout } = process;
    const tty = stdin.isTTY && stdout.isTTY;
    const size = (): { rows: number; cols: number } => ({
      rows: stdout.rows ?? 24,
      cols: stdout.columns ?? 80,
    });
    return new Promise((resolve, reject) => {
      const serve = (error: Error | undefined, channel: ClientChannel): void => {
        if (error) {
          reject(new InfraError('ssh-failed', 'the guest gave no shell', error));
          return;
        }
        const resize = (): void => channel.setWindow(size().rows, size().cols, 0, 0);
        const forward = (chunk: Buffer): void => {
          channel.write(chunk);
        };
        const finish = (): void => {
          channel.end();
        };
        if (tty) {
          stdin.setRawMode(true);
          stdout.on('resize', resize);
        }
        stdin.on('data', forward).on('end', finish);
        stdin.resume();
        channel.on('data', (chunk: Buffer) => process.stdout.write(chunk));
        channel.stderr.on('data', (chunk: Buffer) => process.stderr.write(chunk));
        channel.on('close', () => {
          if (tty) {
            stdin.setRawMode(false);
            stdout.off('resize', resize);
          }
          stdin.off('data', forward).off('end', finish);
          stdin.pause();
          resolve();
        });
      };
      this.#client.once('close', () => resolve());
      if (tty) this.#client.shell({ term: process.env.TERM ?? 'vt100', ...size() }, serve);
      else this.#client.exec('/bin/sh', serve);
    });
  }

  [Symbol.dispose](): void {
    this.#client.destroy();
  }
}
