/** What XFS metadata begins with (fs/xfs/libxfs/xfs_format.h): magic number, and what follows it big-endian. */
const magics: Record<string, string> = {
  XAGF: 'AGF, the header of an allocation group\u2019s free space',
  XAGI: 'AGI, the header of an allocation group\u2019s inodes',
  XAFL: 'AGFL, the free list of an allocation group',
  XFSB: 'superblock',
  ABTB: 'free space btree by block',
  AB3B: 'free space btree by block',
  ABTC: 'free space btree by size',
  AB3C: 'free space btree by size',
  IABT: 'inode btree',
  IAB3: 'inode btree',
  FIBT: 'free inode btree',
  FIB3: 'free inode btree',
  XDB3: 'directory block',
  XDD3: 'directory data',
};

export interface MetadataHeader {
  magic: string;
  meaning: string;
  /** Number of the allocation group, for AGF, AGI and AGFL. */
  allocationGroup: number | null;
  /** Blocks in the allocation group, for AGF and AGI. */
  length: number | null;
}

/** The XFS header at the start of `bytes` (at least 16), or null if it is none. */
export function xfsHeader(bytes: Buffer): MetadataHeader | null {
  if (bytes.length < 16) return null;
  const magic = bytes.toString('latin1', 0, 4);
  const meaning = Object.hasOwn(magics, magic) ? magics[magic] : undefined;
  if (meaning === undefined) return null;
  // AGF and AGI: magic, version, seqno, length. AGFL: magic, seqno.
  const header = magic === 'XAGF' || magic === 'XAGI';
  const sequence = header ? bytes.readUInt32BE(8) : magic === 'XAFL' ? bytes.readUInt32BE(4) : null;
  return { magic, meaning, allocationGroup: sequence, length: header ? bytes.readUInt32BE(12) : null };
}
