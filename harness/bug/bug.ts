/** A kernel option that something needs: `modular`, if `m` will do as well as `y`. */
export interface KernelOption {
  name: string;
  modular: boolean;
  /** What it is there for, for messages: "CONFIG_… is not set: no …". */
  purpose: string;
}

/** The kernel module that holds a bug's gate, and what it is built from. Paths are those of the kernel's source. */
export interface GateModule {
  /** As the kernel lists it once it is loaded. */
  name: string;
  /** Its file below `lib/modules/RELEASE/kernel/`. */
  path: string;
  /** Its kernel option. It must be `m`: what is built in cannot be exchanged. */
  option: string;
  /** Its folder in the kernel's source. */
  dir: string;
  /** Its files in that folder, the one with the gate first; a `*` stands for any name. */
  sources: readonly string[];
  /** Makefile that builds it alone; `own`: the folder's Makefile is for this module alone. */
  makefile: string | 'own';
}

/** Who reads the socket, by what the crash report says of the task. */
export interface Receiver {
  /** Comm of the task. */
  comm: RegExp;
  /** What its Workqueue line must hold; only of a task of a work queue. */
  workqueue?: RegExp;
  /** For messages. */
  words: string;
}

/**
 * Which copy panics. `whole-objects`: two or more neighbouring objects of a kmalloc cache, read as one; `across-pages`: bytes beyond the
 * end of one compound page, read as one with those of the page before.
 */
export type SoughtCopy = 'whole-objects' | 'across-pages';

/** How the sender reaches the target: one folder of the guest's scripts does it (vm-images/guest/transport/ID.sh). */
export interface Transport {
  id: string;
  summary: string;
  /** TCP ports that a target of it listens on: the first, and the last. */
  ports: readonly [first: number, last: number];
  /** Words for the kernel command line. */
  kernelArgs?: readonly string[];
  /** The disk that it brings, below /dev. */
  disk: string;
  /** Modules that its guest loads. */
  modules: readonly string[];
  options: readonly KernelOption[];
  /** What a scenario may set (`transport:`), and reads back: each with its values, the default first. */
  parameters: Readonly<Record<string, { summary: string; values: readonly string[] }>>;
  /** The sender's kernel thread, which analyses look for among the processes. */
  sender: { comm: RegExp; words: string };
}

/** What serves the LUN: vm-images/guest/target/ID.sh brings it up. */
export interface Target {
  id: string;
  summary: string;
  transport: string;
  modules: readonly string[];
  /** Loaded if the kernel has them. */
  optionalModules?: readonly string[];
  receiver: Receiver;
  /** Image that has its programs; only if not every image does. */
  image?: string;
  /** It keeps its data itself: the LUN's file on the host is no part of it, and the file system is made in the guest. */
  ownStorage?: boolean;
}

/** What a workload counts in each cycle, as proof that it tried the bug. */
export interface WorkCounter {
  /** As the guest's markers name it. */
  key: string;
  /** For messages: "cycle 2 completed 0 WORDS". */
  words: string;
  /** What it means if there were too few. */
  tooFew: string;
  /** Bytes that one of them writes to the LUN; default: none. */
  bytes?: number;
  /** How many a cycle must have, if the scenario does not say. */
  least: (allocationGroups: number) => number;
  /** How many all cycles together must have, where a single one may have none. */
  leastInAll?: number;
}

/** One bug of the family, as a value. */
export interface Bug {
  id: string;
  summary: string;
  /** Commits and reports, in the order of time. */
  sources: readonly string[];
  /** What the gate lets through that it must not. */
  leak: string;
  /**
   * Functions that the gate keeps slab pages from, in the order in which they are looked for: a probe on the first that the kernel has reads
   * the gate (vm-images/guest/gate.pl). None: it cannot be read.
   */
  gateFunctions: readonly string[];
  module: GateModule;
  transport: string;
  /** Targets that it can be shown with, the usual one first. */
  targets: readonly string[];
  /** The module that shows it: the positive control. */
  control: string;
  copy: SoughtCopy;
  /** Function of the call trace in which the copy is made. */
  readIn: string;
  counters: readonly WorkCounter[];
  /** Largest request, in sectors of 512 bytes, that the counters are about. */
  requestSectors: number;
  /** Others that were reported to read, whom logs from anywhere may name. */
  readers?: readonly Receiver[];
  /** What is known of a kernel by its release (`uname -r`), in a sentence; null if nothing is. */
  known: (release: string) => string | null;
  /** What somebody whose host has it can do, and what that costs. */
  remedies: readonly string[];
  /** The scenario that shows it soonest, with `control`. */
  shownBy: string;
  /** What lies in the objects that were read, which an analysis looks for. */
  payload: 'xfs-headers' | 'any';
}
