import type { Transport } from '../bug.js';

const digest = ['None', 'CRC32C'];

export const transport: Transport = {
  id: 'iscsi',
  summary: "the kernel's iSCSI initiator (iscsi_tcp)",
  ports: [3260, 3260],
  disk: 'sda',
  modules: ['sd_mod', 'iscsi_tcp'],
  options: [
    { name: 'ISCSI_TCP', modular: true, purpose: "the initiator's iscsi_tcp and libiscsi_tcp" },
    { name: 'BLK_DEV_SD', modular: true, purpose: 'SCSI disks' },
  ],
  parameters: {
    headerDigest: { summary: 'checksum of PDU headers', values: digest },
    dataDigest: { summary: 'checksum of data: the initiator copies what it sends', values: digest },
    immediateData: { summary: 'data in the command PDU', values: ['Yes', 'No'] },
  },
  sender: { comm: /^iscsi_q_\d+$/, words: "the initiator's work queue" },
};
