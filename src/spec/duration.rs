//! Durations as Go's time.ParseDuration reads them.
