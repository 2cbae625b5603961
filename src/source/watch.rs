//! File events as a hint to look again. Never reads a file.
