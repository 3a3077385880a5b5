package threeds

import (
	"errors"
	"fmt"
	"strings"
)

// version is a protocol version that this server speaks, by its messageVersion.
type version uint8

const (
	noVersion version = iota
	v220
	v231
)

// Versions are the protocol versions that a [Server] can speak, the oldest first.
var Versions = []string{v220.String(), v231.String()}

// String returns the messageVersion.
func (v version) String() string { return [...]string{"", "2.2.0", "2.3.1"}[v] }

// versionOf returns noVersion for what is not spoken.
func versionOf(messageVersion string) version {
	for v := v220; v <= v231; v++ {
		if v.String() == messageVersion {
			return v
		}
	}
	return noVersion
}

// versionSet is a set of versions, a bit each.
type versionSet uint8

func setOf(messageVersions ...string) (set versionSet) {
	for _, m := range messageVersions {
		if v := versionOf(m); v != noVersion {
			set |= 1 << v
		}
	}
	return set
}

// setBetween returns the versions from one messageVersion to another. Those are digits with dots, and compare as text.
func setBetween(first, last string) (set versionSet) {
	for v := v220; v <= v231; v++ {
		if first <= v.String() && v.String() <= last {
			set |= 1 << v
		}
	}
	return set
}

func (s versionSet) has(v version) bool { return v != noVersion && s&(1<<v) != 0 }

// newest returns the last version of the set, noVersion where it is empty.
func (s versionSet) newest() version {
	for v := v231; v > noVersion; v-- {
		if s.has(v) {
			return v
		}
	}
	return noVersion
}

// oldest returns the first version of the set, noVersion where it is empty.
func (s versionSet) oldest() version {
	for v := v220; v <= v231; v++ {
		if s.has(v) {
			return v
		}
	}
	return noVersion
}

// before returns the versions of the set that are older than v.
func (s versionSet) before(v version) versionSet { return s & (1<<v - 1) }

// parseVersions reads [Config.Versions].
func parseVersions(messageVersions []string) (versionSet, error) {
	for _, m := range messageVersions {
		if versionOf(m) == noVersion {
			return 0, fmt.Errorf("threeds: version %q is not one of %s", m, strings.Join(Versions, ", "))
		}
	}
	set := setOf(messageVersions...)
	if set == 0 {
		return 0, errors.New("threeds: no protocol version to speak")
	}
	return set, nil
}

// checkVersion holds a message's version against that of its transaction: one that is not spoken at all is error 102, another
// one that is spoken has no place in this transaction, and is error 203.
func (s versionSet) checkVersion(messageVersion string, want version) error {
	switch {
	case messageVersion == want.String():
		return nil
	case s.has(versionOf(messageVersion)):
		return &fault{code: codeFormat, detail: "messageVersion"}
	}
	return &fault{code: codeVersion, detail: "messageVersion"}
}

// isVersion reports whether s is three single digits with dots, so that versions compare as strings.
func isVersion(s string) bool {
	return len(s) == 5 && s[1] == '.' && s[3] == '.' && isDigits(s[:1]+s[2:3]+s[4:], 3, 3)
}
