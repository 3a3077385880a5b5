package wire

import (
	"errors"
	"net"
	"os"
	"sync"
	"syscall"
	"time"

	"golang.org/x/sys/unix"
)

// maxIdle is how many connections to one counterparty are kept.
const maxIdle = 64

// idle are connections that wait for the next request. Nothing that was read on them is left in any buffer.
type idle struct {
	mu    sync.Mutex
	hosts map[string][]*kept
}

// kept is one of them.
type kept struct {
	conn *Conn
	raw  net.Conn // below TLS
	end  *time.Timer
}

// take returns the connection that was used last, nil where there is none that lives.
func (i *idle) take(host string) *kept {
	for {
		k := i.pop(host)
		if k == nil || k.end.Stop() && k.lives() {
			return k
		}
		_ = k.conn.Close() // the timer may have done it already
	}
}

func (i *idle) pop(host string) *kept {
	i.mu.Lock()
	defer i.mu.Unlock()
	list := i.hosts[host]
	if len(list) == 0 {
		return nil
	}
	last := list[len(list)-1]
	i.hosts[host] = list[:len(list)-1]
	return last
}

// put keeps a connection for so long, unless there are enough or it has something to say that nobody has asked for.
func (i *idle) put(host string, k *kept, atMost time.Duration) {
	if !k.conn.rest() || !i.push(host, k, atMost) {
		_ = k.conn.Close()
	}
}

func (i *idle) push(host string, k *kept, atMost time.Duration) bool {
	i.mu.Lock()
	defer i.mu.Unlock()
	if len(i.hosts[host]) >= maxIdle {
		return false
	}
	if i.hosts == nil {
		i.hosts = make(map[string][]*kept)
	}
	k.end = time.AfterFunc(atMost, func() { i.drop(host, k) })
	i.hosts[host] = append(i.hosts[host], k)
	return true
}

// drop closes a connection that nobody has taken.
func (i *idle) drop(host string, k *kept) {
	i.mu.Lock()
	defer i.mu.Unlock()
	list := i.hosts[host]
	for at := range list {
		if list[at] == k {
			i.hosts[host] = append(list[:at], list[at+1:]...)
			_ = k.conn.Close()
			return
		}
	}
}

// close closes all.
func (i *idle) close() {
	i.mu.Lock()
	defer i.mu.Unlock()
	for _, list := range i.hosts {
		for _, k := range list {
			k.end.Stop()
			_ = k.conn.Close()
		}
	}
	i.hosts = nil
}

// lives reports whether the counterparty has neither closed the connection nor sent anything: a request on such a one would be
// lost, and it would not be known whether it was taken. The kernel is asked, and nothing is read.
func (k *kept) lives() bool {
	socket, ok := k.raw.(syscall.Conn)
	if !ok {
		return false
	}
	raw, err := socket.SyscallConn()
	if err != nil {
		return false
	}
	var one [1]byte
	var waiting error
	err = raw.Read(func(fd uintptr) bool {
		_, _, waiting = unix.Recvfrom(int(fd), one[:], unix.MSG_PEEK|unix.MSG_DONTWAIT) //nolint:gosec // a descriptor fits
		return true
	})
	return err == nil && errors.Is(waiting, unix.EAGAIN)
}

// rest wipes what was read last, by asking crypto/tls for more without waiting for it, and reports whether there was nothing.
func (c *Conn) rest() bool {
	if err := c.SetReadDeadline(time.Unix(1, 0)); err != nil {
		return false
	}
	var one [1]byte
	n, err := c.Read(one[:])
	return n == 0 && os.IsTimeout(err) && c.SetReadDeadline(time.Time{}) == nil
}
