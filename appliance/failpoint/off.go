//go:build !failpoints

package failpoint

// Here marks a place.
func Here(string) {}
