import { generateKeyPairSync, randomBytes } from 'node:crypto';
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
  /** The host key's public blob, as ssh2 presents it to a verifier, and as a line of known_hosts has it. */
  hostPublicBlob: Buffer;
  hostPublicKey: string;
}

/** Makes fresh ed25519 keys for user and guest. */
export function makeSshKeys(): SshKeys {
  const [user, host] = [makeKey(), makeKey()];
  return {
    privateKey: openSshPrivateKey(user, 'loopanic'),
    publicKey: `ssh-ed25519 ${publicBlob(user).toString('base64')} loopanic`,
    hostKey: {
      // dropbear's own format: string type, string (seed || point). Source: dropbear's ed25519.c, buf_put_ed25519_priv_key.
      dropbear: Buffer.concat([sshString(TYPE), sshString(Buffer.concat([host.seed, host.point]))]),
      openssh: openSshPrivateKey(host, 'loopanic guest'),
    },
    hostPublicBlob: publicBlob(host),
    hostPublicKey: `ssh-ed25519 ${publicBlob(host).toString('base64')}`,
  };
}

interface Ed25519Key {
  seed: Buffer;
  point: Buffer;
}
const TYPE = Buffer.from('ssh-ed25519');

function makeKey(): Ed25519Key {
  const jwk = generateKeyPairSync('ed25519').privateKey.export({ format: 'jwk' });
  return { seed: Buffer.from(jwk.d ?? '', 'base64url'), point: Buffer.from(jwk.x ?? '', 'base64url') };
}

const publicBlob = ({ point }: Ed25519Key): Buffer => Buffer.concat([sshString(TYPE), sshString(point)]);

/**
 * An unencrypted key as OpenSSH writes it (openssh-key-v1, OpenSSH's PROTOCOL.key). Made here: of 1,500 keys of ssh2 1.17's own generator
 * 8 were not read back by ssh2 itself.
 */
function openSshPrivateKey(key: Ed25519Key, comment: string): string {
  const check = randomBytes(4);
  const secret = Buffer.concat([
    ...[check, check, sshString(TYPE), sshString(key.point)],
    ...[sshString(Buffer.concat([key.seed, key.point])), sshString(Buffer.from(comment))],
  ]);
  // Padded to the block size of no cipher, 8, with 1, 2, 3, …
  const padding = Buffer.from([1, 2, 3, 4, 5, 6, 7].slice(0, (8 - (secret.length % 8)) % 8));
  const none = sshString(Buffer.from('none'));
  const one = Buffer.from([0, 0, 0, 1]);
  const whole = Buffer.concat([
    ...[Buffer.from('openssh-key-v1\0'), none, none, sshString(Buffer.alloc(0)), one],
    ...[sshString(publicBlob(key)), sshString(Buffer.concat([secret, padding]))],
  ]);
  const lines = whole.toString('base64').match(/.{1,70}/g) ?? [];
  return `-----BEGIN OPENSSH PRIVATE KEY-----\n${lines.join('\n')}\n-----END OPENSSH PRIVATE KEY-----\n`;
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
