/**
 * What a node may be called. Slots, origins, files and paths are named after it.
 */

/** Longest name of a node: slots and origins are `mmlite_<name>`, and PostgreSQL keeps 63 bytes of a name. */
export const MAX_NODE_NAME_LENGTH = 40;

/** The form of a node's name. */
export const NODE_NAME = new RegExp(`^[a-z0-9][a-z0-9_-]{0,${MAX_NODE_NAME_LENGTH - 1}}$`);

/** The form in words, for errors. */
export const NODE_NAME_RULE =
  `1 to ${MAX_NODE_NAME_LENGTH} lower-case letters, digits, _ and -, beginning with a letter or digit`;
