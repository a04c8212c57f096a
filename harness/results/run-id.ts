/** Names of runs' folders: the time of their beginning, and a few characters of their own. */
export const RUN_ID = /^\d{8}T\d{6}Z-[0-9a-f]{6}$/;
