package main

/*
#include <stdlib.h>
#include <string.h>

// The C library defines __GLIBC__ in <features.h>, which the above include.
#ifdef __GLIBC__
enum { IS_GLIBC = 1 };
#else
enum { IS_GLIBC = 0 };
#endif
*/
import "C"

import (
	"bytes"
	"errors"
	"fmt"
	"os"
	"unsafe"

	"golang.org/x/sys/unix"
)

// glibc reads its tunables when a program begins, and never again. perturb has a freed block overwritten; but blocks that
// go into the thread's cache are not, so there is to be none.
const (
	tunablesVariable = "GLIBC_TUNABLES"
	heapTunables     = "glibc.malloc.perturb=165:glibc.malloc.tcache_count=0"
)

// freedBlocksOverwritten frees blocks of several sizes, each of which another part of the allocator keeps, and looks what
// stands there. It asks the kernel for the bytes (process_vm_readv(2)): for C, to read a freed block is undefined.
func freedBlocksOverwritten() (string, bool) {
	if C.IS_GLIBC == 0 {
		return "the C library is not glibc, which alone has " + tunablesVariable, false
	}
	for _, n := range []int{64, 1000, 8000} {
		kept, err := keptOfFreed(n)
		if err != nil {
			return "a freed block could not be looked at: " + err.Error(), false
		}
		if kept > 0 {
			return fmt.Sprintf("a freed block of %d bytes keeps %d of them", n, kept), false
		}
	}
	return "freed blocks are overwritten (tried)", true
}

// mark is what is looked for in freed blocks.
const mark = 0xC3

// keptOfFreed returns how many bytes of a block of n can be read in a row after it was freed.
func keptOfFreed(n int) (kept int, err error) {
	// A neighbour that stays keeps the block from being given back to the system at once.
	block, neighbour := C.malloc(C.size_t(n)), C.malloc(C.size_t(n))
	defer C.free(neighbour)
	C.memset(block, mark, C.size_t(n))
	address := uintptr(block)
	C.free(block)
	found := make([]byte, n)
	local := []unix.Iovec{{Base: unsafe.SliceData(found), Len: uint64(n)}}
	if _, err := unix.ProcessVMReadv(os.Getpid(), local, []unix.RemoteIovec{{Base: address, Len: n}}, 0); errors.Is(err, unix.EFAULT) {
		return 0, nil // it is the system's again
	} else if err != nil {
		return 0, err
	}
	run := bytes.Repeat([]byte{mark}, 8)
	if !bytes.Contains(found, run) {
		return 0, nil
	}
	return bytes.Count(found, run[:1]), nil
}
