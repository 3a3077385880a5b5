package main

import (
	"fmt"
	"io"
	"os"
	"strings"
	"sync/atomic"
	"time"

	"golang.org/x/sys/unix"
)

// progress is a bar on standard error, where that is a terminal. Without one it does nothing.
type progress struct {
	on    bool
	size  int64 // of the input, 0 where it is not known
	read  atomic.Int64
	begun time.Time
	shown time.Time
	n     int
}

// newProgress returns a bar for an input.
func newProgress(in *os.File) *progress {
	p := &progress{begun: time.Now()}
	_, err := unix.IoctlGetTermios(int(os.Stderr.Fd()), unix.TCGETS)
	p.on = err == nil
	if info, err := in.Stat(); err == nil && info.Mode().IsRegular() {
		p.size = info.Size()
	}
	return p
}

// reader counts what is read of the input.
func (p *progress) reader(in io.Reader) io.Reader { return counted{in, &p.read} }

type counted struct {
	io.Reader
	n *atomic.Int64
}

func (c counted) Read(b []byte) (int, error) {
	n, err := c.Reader.Read(b)
	c.n.Add(int64(n))
	return n, err
}

// count shows that n lines are done, a few times a second.
func (p *progress) count(n int) {
	p.n = n
	if now := time.Now(); p.on && now.Sub(p.shown) >= 100*time.Millisecond {
		p.shown = now
		fmt.Fprint(os.Stderr, "\r\x1b[K", p.line(now))
	}
}

const barWidth = 30

func (p *progress) line(now time.Time) string {
	rate := float64(p.n) / max(now.Sub(p.begun).Seconds(), 0.001)
	text := fmt.Sprintf("%d cards, %.0f a second", p.n, rate)
	if p.size == 0 {
		return text
	}
	return p.bar() + "  " + text // what was read is at most some thousand lines ahead
}

// bar draws how much of an input of known size was read.
func (p *progress) bar() string {
	done := min(1, float64(p.read.Load())/float64(max(p.size, 1)))
	full := int(done * barWidth)
	return fmt.Sprintf("[%s%s] %3.0f %%", strings.Repeat("=", full), strings.Repeat(" ", barWidth-full), 100*done)
}

// moving shows how much of an input was read, as it is read.
func (p *progress) moving(in io.Reader) io.Reader { return moved{p.reader(in), p} }

type moved struct {
	io.Reader
	p *progress
}

func (m moved) Read(b []byte) (int, error) {
	n, err := m.Reader.Read(b)
	if now := time.Now(); m.p.on && now.Sub(m.p.shown) >= 100*time.Millisecond {
		m.p.shown = now
		done := m.p.read.Load()
		fmt.Fprintf(os.Stderr, "\r\x1b[K%s  %.0f MB, %.0f a second", m.p.bar(), float64(done)/1e6, float64(done)/1e6/max(now.Sub(m.p.begun).Seconds(), 0.001))
	}
	return n, err
}

// end takes the bar away.
func (p *progress) end() {
	if p.on && !p.shown.IsZero() {
		fmt.Fprint(os.Stderr, "\r\x1b[K")
		p.on = false
	}
}
