package main

import (
	"bufio"
	"context"
	"crypto/tls"
	"crypto/x509"
	"errors"
	"fmt"
	"net"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"syscall"
	"time"

	"github.com/finterra/finpay/appliance/config"
)

// trial is an appliance and its simulated counterparties, each in a process of its own: the counterparties see card
// numbers, the appliance's memory must not.
type trial struct {
	cfg      config.Config
	children []*child
}

// child is a process that writes its log into the state directory.
type child struct {
	name string
	cmd  *exec.Cmd
	done chan struct{} // closed when it has ended
	err  error
}

const (
	startTimeout = 30 * time.Second
	pollPeriod   = 50 * time.Millisecond
)

// startTrial sets up what is missing and starts both processes. The caller ends them with [trial.stop].
func startTrial(ctx context.Context, g globals) (*trial, *setUpReport, error) {
	report, err := initCommand{MerchantName: "Pelangi Tea"}.setUp(ctx, g)
	if err != nil {
		return nil, nil, err
	}
	cfg, err := g.load()
	if err != nil {
		return nil, nil, err
	}
	if err := equipShop(ctx, cfg); err != nil {
		return nil, nil, err
	}
	t := &trial{cfg: cfg}
	if err := t.start(ctx, g); err != nil {
		return nil, nil, errors.Join(err, t.stop())
	}
	return t, report, nil
}

func (t *trial) start(ctx context.Context, g globals) error {
	if err := t.checkAddresses(ctx); err != nil {
		return err
	}
	for _, name := range []string{"simulator", "serve"} {
		if err := t.startChild(g, name); err != nil {
			return err
		}
	}
	return t.awaitReady(ctx)
}

// checkAddresses finds out what is taken before anything starts: another appliance on the same ports would answer for
// this one, and what came of it would explain nothing.
func (t *trial) checkAddresses(ctx context.Context) error {
	var wrong []error
	all := []struct{ setting, address string }{
		{"listen", t.cfg.Listen},
		{"monitor", t.cfg.Monitor},
		{"simulator.acquirer", t.cfg.Simulator.Acquirer},
		{"simulator.web", t.cfg.Simulator.Web},
	}
	for i, d := range t.cfg.ThreeDS.DirectoryServers {
		all = append(all, struct{ setting, address string }{fmt.Sprintf("three_d_secure.directory_servers[%d].results_listen", i), d.ResultsListen})
	}
	for _, a := range all {
		socket, err := new(net.ListenConfig).Listen(ctx, "tcp", a.address)
		if err != nil {
			wrong = append(wrong, fmt.Errorf("%s: %w; end the program that uses it, or change the address in %s", a.setting, err, config.FileName))
			continue
		}
		_ = socket.Close()
	}
	return errors.Join(wrong...)
}

func (t *trial) startChild(g globals, name string) error {
	self, err := os.Executable()
	if err != nil {
		return err
	}
	args := []string{name, "--state", g.State}
	if g.Config != "" {
		args = append(args, "--config", g.Config)
	}
	log, err := os.OpenFile(t.logFile(name), os.O_CREATE|os.O_APPEND|os.O_WRONLY, 0o600)
	if err != nil {
		return err
	}
	defer func() { _ = log.Close() }()                                                   // the child has its own
	c := &child{name: name, cmd: exec.Command(self, args...), done: make(chan struct{})} //nolint:gosec // this very program
	c.cmd.Stdout, c.cmd.Stderr = log, log
	// The signal that ends a terminal's foreground group would reach the children before their time.
	c.cmd.SysProcAttr = &syscall.SysProcAttr{Setpgid: true, Pdeathsig: syscall.SIGTERM}
	if err := c.cmd.Start(); err != nil {
		return fmt.Errorf("start %s: %w", name, err)
	}
	t.children = append(t.children, c)
	go func() {
		c.err = c.cmd.Wait()
		close(c.done)
	}()
	return nil
}

func (t *trial) logFile(name string) string { return filepath.Join(t.cfg.State(), name+".log") }

// awaitReady returns when the appliance would take a payment and its connectors are connected.
func (t *trial) awaitReady(ctx context.Context) error {
	ctx, cancel := context.WithTimeout(ctx, startTimeout)
	defer cancel()
	tick := time.NewTicker(pollPeriod)
	defer tick.Stop()
	for {
		if ready(ctx, t.cfg.Monitor) {
			return nil
		}
		for _, c := range t.children {
			select {
			case <-c.done:
				return fmt.Errorf("%s ended: %s", c.name, lastLine(t.logFile(c.name)))
			default:
			}
		}
		select {
		case <-tick.C:
		case <-ctx.Done():
			return fmt.Errorf("the appliance did not become ready; see %s", t.logFile("serve"))
		}
	}
}

func ready(ctx context.Context, monitor string) bool {
	request, err := http.NewRequestWithContext(ctx, http.MethodGet, "http://"+monitor+"/readyz", nil)
	if err != nil {
		return false
	}
	response, err := http.DefaultClient.Do(request)
	if err != nil {
		return false
	}
	defer func() { _ = response.Body.Close() }()
	line, _ := bufio.NewReader(response.Body).ReadString('\n')
	return response.StatusCode == http.StatusOK && strings.Contains(line, `"connectors":"ok"`)
}

func lastLine(path string) string {
	text, err := os.ReadFile(path)
	if err != nil {
		return err.Error()
	}
	lines := strings.Split(strings.TrimSpace(string(text)), "\n")
	return lines[len(lines)-1]
}

// stop ends the appliance first, so that it can still finish with its counterparties, then those.
func (t *trial) stop() error {
	var errs []error
	for i := len(t.children) - 1; i >= 0; i-- {
		c := t.children[i]
		_ = c.cmd.Process.Signal(syscall.SIGTERM)
		select {
		case <-c.done:
		case <-time.After(stopTimeout + 2*time.Second):
			_ = c.cmd.Process.Kill()
			<-c.done
		}
		if c.err != nil {
			errs = append(errs, fmt.Errorf("%s: %w; see %s", c.name, c.err, t.logFile(c.name)))
		}
	}
	return errors.Join(errs...)
}

// ended returns a channel that is closed when any of the processes ends.
func (t *trial) ended() <-chan string {
	ended := make(chan string, len(t.children))
	for _, c := range t.children {
		go func() {
			<-c.done
			ended <- c.name
		}()
	}
	return ended
}

// client trusts the appliance and the simulator, follows no redirect, and sends no card anywhere by itself.
func (t *trial) client() (*http.Client, error) {
	roots, err := pool(x509.NewCertPool(), t.cfg.TLS.Certificate)
	if err != nil {
		return nil, err
	}
	if roots, err = pool(roots, filepath.Join(simulatorDir(t.cfg), "ca.pem")); err != nil {
		return nil, err
	}
	return &http.Client{
		Timeout:       time.Minute,
		Transport:     &http.Transport{TLSClientConfig: &tls.Config{RootCAs: roots, MinVersion: tls.VersionTLS13}},
		CheckRedirect: func(*http.Request, []*http.Request) error { return http.ErrUseLastResponse },
	}, nil
}

// shopURL is where the simulated shop is.
func (t *trial) shopURL() string {
	_, port, _ := strings.Cut(t.cfg.Simulator.Web, ":")
	return "https://localhost:" + port
}
