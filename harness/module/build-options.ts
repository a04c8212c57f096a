/** How modules are built. */
export interface BuildOptions {
  /** `auto`: on this host if it has the right compiler, else in a container. */
  builder: 'auto' | 'docker' | 'host';
  /** Tarball of the builder image (docker save's, or a root file system), for hosts without a registry. */
  builderImage?: string | undefined;
  /** Seconds after which a build is stopped. */
  buildSeconds: number;
}

/** A build that takes longer than this under any builder has gone astray: three seconds were seen. */
export const BUILD_DEFAULTS: BuildOptions = { builder: 'auto', buildSeconds: 600 };
