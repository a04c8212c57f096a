import type { Bug, WorkCounter } from '../bug.js';
import { nvmeTcp } from '../nvme-tcp.js';
import { versionAtLeast } from '../release.js';

const counter = (key: string, words: string, bytes: number): WorkCounter => ({
  key,
  words,
  bytes,
  tooFew: 'it did not try the trigger',
  // Each scenario says what its own workload counts.
  least: () => 0,
});

export const bug: Bug = {
  id: 'nvme-tcp-pages',
  summary:
    'NVMe over TCP over a loopback: a piece of a request that spans two compound pages is sent as one, and read across the end of the first',
  sources: [
    'openebs/mayastor#1330, openebs/mayastor#1693, longhorn/longhorn#8121',
    '7769887817c3 (nvme-tcp: use sendmsg(MSG_SPLICE_PAGES) instead of sendpage), in 6.5',
  ],
  leak: 'pieces that run across the end of a compound page go to one kernel_sendpage',
  // skb_splice_from_iter() (6.5) splits pieces itself.
  gateFunctions: ['tcp_sendpage'],
  module: nvmeTcp,
  transport: 'nvme-tcp',
  targets: ['nvmet'],
  control: 'stock',
  copy: 'across-pages',
  readIn: 'tcp_recvmsg',
  // Of the two kinds of workloads: direct writes across huge pages, and buffered ones of what was read before.
  counters: [
    counter('spans', 'writes across two huge pages', 8192),
    counter('writes', 'direct writes', 4096),
    counter('rewritten', 'KiB written back', 1024),
    counter('folios', 'pages of the file that lay in large folios', 0),
  ],
  requestSectors: 16,
  // In the kernel nvmet reads; SPDK does with readv (mayastor: io-engine), and so may any program with a socket.
  readers: [
    { comm: /^reactor_\d+$/, words: 'an SPDK reactor' },
    { comm: /^lcore-worker-\d+$/, words: 'a DPDK worker of SPDK' },
    { comm: /^io-engine$/, words: "mayastor's io-engine" },
    { comm: /^/, words: 'the reader of a socket' },
  ],
  known: (release) => {
    if (/^5\.14\.0-\d+\S*\.el9/.test(release))
      return "RHEL 9's 5.14 has the check of compound pages from later kernels; longhorn/longhorn#8121 reports 5.14.0-362 (Rocky 9.3)";
    if (release.includes('.el')) return null;
    if (!versionAtLeast(release, 5, 18))
      return 'its usercopy check does not look at the ends of compound pages, as shipped';
    return versionAtLeast(release, 6, 5)
      ? 'it has 7769887817c3, as shipped: another module was loaded, or another sender is at work'
      : 'it is affected as shipped: 5.18 to 6.4 check copies against compound pages, and their nvme-tcp sends across two';
  },
  remedies: [
    'a kernel from 6.5 on (Debian 12: bookworm-backports)',
    "nvme-tcp with three lines changed: 'loopanic module build page-by-page --bug nvme-tcp-pages', or the DKMS folder vm-images/modules/nvme_tcp/dkms",
    'ext4 instead of XFS: it has no large folios before 6.16, so buffered writes do not trigger it; direct writes across huge pages do',
    'the target on another host',
    'hardened_usercopy=off on the kernel command line: the check is off for everything else, too',
    'digests do not help',
  ],
  shownBy: 'nvme-tcp-buffered',
  payload: 'any',
};
