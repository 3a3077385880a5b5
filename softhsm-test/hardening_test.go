package softhsmtest_test

import (
	"bytes"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"strings"
	"testing"
)

// What serve says of itself is what the system says of it.
func TestTheServingProcessIsProtected(t *testing.T) {
	s := newSystem(t)
	proc := func(file string) string {
		text, err := os.ReadFile(fmt.Sprintf("/proc/%d/%s", s.serve.cmd.Process.Pid, file))
		if err != nil {
			t.Error(err)
		}
		return string(text)
	}
	if limits := proc("limits"); !regexp.MustCompile(`(?m)^Max core file size +0 +0 `).MatchString(limits) {
		t.Errorf("%s", limits)
	}
	if status := proc("status"); regexp.MustCompile(`(?m)^VmLck:\s+0 kB`).MatchString(status) {
		t.Errorf("%s", status)
	}
	if os.Getuid() == 0 { // a process that is not dumpable belongs to root in /proc
		// glibc parts the variable in place, in what /proc shows.
		if environment := proc("environ"); !regexp.MustCompile(`GLIBC_TUNABLES=glibc\.malloc\.perturb=165[:\x00]glibc\.malloc\.tcache_count=0\x00`).MatchString(environment) {
			t.Errorf("%q", environment)
		}
	} else if _, err := os.ReadFile(fmt.Sprintf("/proc/%d/environ", s.serve.cmd.Process.Pid)); !errors.Is(err, os.ErrPermission) {
		t.Errorf("the environment of a process that is not dumpable can be read: %v", err)
	}
	log, err := os.ReadFile(filepath.Join(s.cfg.State(), "serve.log"))
	if err != nil {
		t.Fatal(err)
	}
	for _, want := range []string{"asyncpreemptoff=1", `read_back.heap="freed blocks are overwritten (tried)"`, `read_back.dumpable="PR_GET_DUMPABLE 0"`, "read_back.core=", "read_back.memlock=", "read_back.swap="} {
		if !bytes.Contains(log, []byte(want)) {
			t.Errorf("%s is not in the log:\n%s", want, log)
		}
	}
}

func TestServeRefusesToStartWhereCardsCannotBeLocked(t *testing.T) {
	s := prepare(t)
	limited := `ulimit -l 512 && exec "$0" serve --state "$1"`
	cmd := exec.Command("sh", "-c", limited, finpay, s.cfg.State())
	if os.Getuid() == 0 { // root may lock what it likes, unless it gives that up
		cmd = exec.Command("setpriv", "--bounding-set=-ipc_lock", "--inh-caps=-ipc_lock", "sh", "-c", limited, finpay, s.cfg.State())
	}
	cmd.Env = s.env
	out, err := cmd.CombinedOutput()
	if err == nil || !strings.Contains(string(out), "memlock: VmLck 0") || !strings.Contains(string(out), "LimitMEMLOCK=64M") {
		t.Errorf("%v\n%s", err, out)
	}
}
