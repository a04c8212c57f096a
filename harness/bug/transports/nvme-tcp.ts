import type { Transport } from '../bug.js';

const digest = ['off', 'on'];

export const transport: Transport = {
  id: 'nvme-tcp',
  summary: "the kernel's NVMe over TCP host (nvme-tcp)",
  ports: [4420, 4420],
  // One path: the disk whose name the trace events tell is the one that is mounted.
  kernelArgs: ['nvme_core.multipath=N'],
  disk: 'nvme0n1',
  modules: ['nvme_tcp'],
  options: [{ name: 'NVME_TCP', modular: true, purpose: 'nvme-tcp' }],
  parameters: {
    headerDigest: { summary: 'checksum of PDU headers', values: digest },
    dataDigest: { summary: 'checksum of data: it is sent by reference all the same', values: digest },
  },
  sender: { comm: /nvme_tcp/, words: "the host's work queue" },
};
