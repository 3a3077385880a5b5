package acquiring

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"math/rand/v2"
	"time"
)

// signOffTimeout bounds the wait for a farewell that changes nothing.
const signOffTimeout = 2 * time.Second

// Run keeps the connection until ctx ends. Then no new request is taken, those in flight get the time that any
// answer has, the host is signed off, and Run returns nil with all its goroutines ended. A connector runs once at a
// time: a second Run is an error.
func (c *Connector) Run(ctx context.Context) error {
	if !c.running.CompareAndSwap(false, true) {
		return errors.New("acquiring: the connector is running already")
	}
	defer c.running.Store(false)
	wait := c.cfg.ReconnectMin
	for first := true; ctx.Err() == nil; {
		l, err := c.connect(ctx)
		if err == nil {
			if !first {
				c.reconnects.Add(1)
			}
			first = false
			slog.InfoContext(ctx, "connected to the acquirer")
			err = c.keep(ctx, l)
			if l.heard.Load() != 0 { // a host that accepts and hangs up is no reason to hurry
				wait = c.cfg.ReconnectMin
			}
		}
		if ctx.Err() != nil {
			break
		}
		slog.WarnContext(ctx, "no connection to the acquirer", "error", err, "retry_in", wait)
		pause(ctx, jitter(wait))
		wait = min(2*wait, c.cfg.ReconnectMax)
	}
	return nil
}

// connect dials and signs on.
func (c *Connector) connect(ctx context.Context) (*line, error) {
	l, err := c.dial(ctx)
	if err != nil {
		return nil, fmt.Errorf("connect: %w", err)
	}
	if c.cfg.SignOn {
		if err := c.manage(ctx, l, signOn); err != nil {
			l.end(errClosed)
			<-l.done
			return nil, fmt.Errorf("sign on: %w", err)
		}
	}
	return l, nil
}

// keep lets requests use l until it breaks or ctx ends, and returns when its reader has ended.
func (c *Connector) keep(ctx context.Context, l *line) error {
	c.use(l)
	err := c.watch(ctx, l)
	c.use(nil)
	if ctx.Err() != nil {
		c.leave(ctx, l)
	}
	l.end(errClosed)
	<-l.done
	return err
}

// watch tests the line when it is silent, until it breaks or ctx ends.
func (c *Connector) watch(ctx context.Context, l *line) error {
	var due <-chan time.Time
	timer := time.NewTimer(c.cfg.EchoInterval)
	defer timer.Stop()
	if c.cfg.EchoInterval > 0 {
		due = timer.C
	}
	for {
		select {
		case <-ctx.Done():
			return ctx.Err()
		case <-l.done:
			return l.err
		case <-due:
		}
		if l.silence() >= c.cfg.EchoInterval {
			if err := c.manage(ctx, l, echoTest); err != nil {
				return fmt.Errorf("echo test: %w", err)
			}
		}
		timer.Reset(max(c.cfg.EchoInterval-l.silence(), time.Millisecond))
	}
}

// leave lets the requests in flight end and signs off.
func (c *Connector) leave(ctx context.Context, l *line) {
	ctx, cancel := context.WithTimeout(context.WithoutCancel(ctx), c.cfg.AnswerTimeout)
	defer cancel()
	c.flights.drain(ctx)
	if !c.cfg.SignOn {
		return
	}
	ctx, cancel = context.WithTimeout(context.WithoutCancel(ctx), signOffTimeout)
	defer cancel()
	if err := c.manage(ctx, l, signOff); err != nil {
		slog.InfoContext(ctx, "the acquirer did not acknowledge the sign-off", "error", err)
	}
}

// jitter spreads the reconnections of many appliances over half to one and a half of d.
func jitter(d time.Duration) time.Duration { return d/2 + rand.N(d+1) }

func pause(ctx context.Context, d time.Duration) {
	timer := time.NewTimer(d)
	defer timer.Stop()
	select {
	case <-timer.C:
	case <-ctx.Done():
	}
}
