import type { Target } from '../bug.js';

export const target: Target = {
  id: 'nvmet',
  summary: "nvmet-tcp, the kernel's own NVMe over TCP target",
  transport: 'nvme-tcp',
  modules: ['configfs', 'nvmet', 'nvmet_tcp'],
  receiver: {
    comm: /^kworker\/\d+:\d+H?$/,
    workqueue: /^nvmet_tcp_wq nvmet_tcp_io_work\b/,
    words: 'nvmet_tcp_io_work',
  },
};
