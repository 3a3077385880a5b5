package ceremony

import (
	"bytes"
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"fmt"
	"io"
	"os"
	"strconv"
	"strings"
)

// Share is one custodian's part of a backup's key encryption key.
type Share struct {
	Custodian  string
	Number     int    // x of the polynomial, from 1
	Threshold  int    // so many restore
	Of         int    // so many were made
	CheckValue string // of the key encryption key
	Backup     string // digest of the backup's file: see [Backup.Digest]
	Value      []byte // [KEKSize] bytes, in locked memory
}

// A share is a text that can be written down and typed in again:
//
//	FINPay key share, version 1
//	Custodian: key-custodian-a
//	Share: 1 of 3; any 2 restore
//	Check value: 1f9c5e
//	Backup: 90c1 22f5 …
//	Value 1: 5d1e 0b7c 99ab 3f02  c3a1
//	…
//	Checksum: 77aa 01c2
//
// Each of the four lines of the value has eight bytes and the first two bytes of SHA-256 over its number and them, so that
// a typing error is found in its line; the checksum is the first four bytes of SHA-256 over all lines above it.
const (
	shareTitle = "FINPay key share, version 1"
	shareLines = 4
	lineBytes  = KEKSize / shareLines
	maxShare   = 4096 // bytes of a file
)

// WriteShare writes a share into a new file that its owner alone may read.
func WriteShare(path string, s Share) (err error) {
	text, err := NewLocked(maxShare)
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, text.Destroy()) }()
	if err := writeNew(path, s.format(text.Bytes()[:0])); err != nil {
		return fmt.Errorf("share of %s: %w", s.Custodian, err)
	}
	return nil
}

// format appends the text to b, whose capacity suffices: nothing is copied elsewhere.
func (s Share) format(b []byte) []byte {
	b = fmt.Appendf(b, "%s\nCustodian: %s\nShare: %d of %d; any %d restore\nCheck value: %s\nBackup: ", shareTitle, s.Custodian, s.Number, s.Of, s.Threshold, s.CheckValue)
	b = append(appendGroups(b, []byte(s.Backup)), '\n')
	for i := range shareLines {
		part := s.Value[i*lineBytes : (i+1)*lineBytes]
		b = fmt.Appendf(b, "Value %d: ", i+1)
		b = appendHexGroups(b, part)
		sum := lineSum(i, part)
		b = append(hex.AppendEncode(append(b, ' ', ' '), sum[:2]), '\n')
	}
	sum := sha256.Sum256(b)
	return append(appendHexGroups(append(b, "Checksum: "...), sum[:4]), '\n')
}

func lineSum(line int, part []byte) [sha256.Size]byte {
	var buf [1 + lineBytes]byte
	defer clear(buf[:])
	buf[0] = byte(line + 1)
	copy(buf[1:], part)
	return sha256.Sum256(buf[:])
}

// appendGroups writes hex digits in groups of four.
func appendGroups(b, digits []byte) []byte {
	for i, c := range digits {
		if i > 0 && i%4 == 0 {
			b = append(b, ' ')
		}
		b = append(b, c)
	}
	return b
}

func appendHexGroups(b, value []byte) []byte {
	for i := range len(value) / 2 {
		if i > 0 {
			b = append(b, ' ')
		}
		b = hex.AppendEncode(b, value[2*i:2*i+2])
	}
	return b
}

// ReadShare reads a share's file. value receives the secret part and becomes [Share.Value]; an error never tells of it.
func ReadShare(path string, value []byte) (s Share, err error) {
	text, err := NewLocked(maxShare + 1)
	if err != nil {
		return s, err
	}
	defer func() { err = errors.Join(err, text.Destroy()) }()
	file, err := os.Open(path)
	if err != nil {
		return s, fmt.Errorf("share: %w", err)
	}
	defer func() { _ = file.Close() }()
	n, err := io.ReadFull(file, text.Bytes())
	if err == nil {
		return s, fmt.Errorf("share %s: longer than any share", path)
	}
	if !errors.Is(err, io.ErrUnexpectedEOF) {
		return s, fmt.Errorf("share %s: %w", path, err)
	}
	if s, err = parseShare(text.Bytes()[:n], value); err != nil {
		return Share{}, fmt.Errorf("share %s: %w", path, err)
	}
	return s, nil
}

// parseShare reads the text of a share. Only what is not secret becomes a string.
func parseShare(text, value []byte) (Share, error) {
	s := Share{Value: value}
	if len(value) != KEKSize {
		return s, fmt.Errorf("ceremony: room for %d bytes; a share has %d", len(value), KEKSize)
	}
	end := bytes.LastIndex(text, []byte("Checksum: "))
	if !bytes.HasPrefix(text, []byte(shareTitle+"\n")) || end < 0 {
		return s, fmt.Errorf("it is not a %q", shareTitle)
	}
	lines := bytes.Split(text[:end], []byte("\n"))
	if len(lines) != 5+shareLines+1 || len(lines[5+shareLines]) != 0 {
		return s, errors.New("lines are missing or too many")
	}
	if err := s.parseHead(lines[1:5]); err != nil {
		return s, err
	}
	for i, line := range lines[5 : 5+shareLines] {
		if err := parseValueLine(value[i*lineBytes:(i+1)*lineBytes], i, line); err != nil {
			return s, err
		}
	}
	// What was written is what would be written again: nothing in the file is beside the point.
	again, err := NewLocked(maxShare)
	if err != nil {
		return s, err
	}
	same := bytes.Equal(s.format(again.Bytes()[:0]), text)
	if err := again.Destroy(); err != nil {
		return s, err
	}
	if !same {
		return s, errors.New("its checksum does not hold: one of the lines above the value has an error, or the checksum itself")
	}
	return s, nil
}

func (s *Share) parseHead(lines [][]byte) error {
	field := func(i int, name string) (string, error) {
		text, ok := strings.CutPrefix(string(lines[i]), name+": ")
		if !ok {
			return "", fmt.Errorf("line %d does not begin with %q", i+2, name+": ")
		}
		return text, nil
	}
	var numbers, backup string
	var err error
	for i, f := range []struct {
		name string
		into *string
	}{{"Custodian", &s.Custodian}, {"Share", &numbers}, {"Check value", &s.CheckValue}, {"Backup", &backup}} {
		if *f.into, err = field(i, f.name); err != nil {
			return err
		}
	}
	s.Backup = strings.ReplaceAll(backup, " ", "")
	of, rest, ok := strings.Cut(numbers, " of ")
	total, threshold, ok2 := strings.Cut(strings.TrimSuffix(rest, " restore"), "; any ")
	var errs [3]error
	s.Number, errs[0] = strconv.Atoi(of)
	s.Of, errs[1] = strconv.Atoi(total)
	s.Threshold, errs[2] = strconv.Atoi(threshold)
	if !ok || !ok2 || errors.Join(errs[:]...) != nil || s.Threshold < 2 || s.Threshold > s.Of || s.Number < 1 || s.Number > s.Of || s.Of > maxCustodians {
		return errors.New("line 3 does not say which share of how many it is")
	}
	return nil
}

// parseValueLine reads "Value n: 5d1e 0b7c 99ab 3f02  c3a1".
func parseValueLine(part []byte, i int, line []byte) error {
	wrong := fmt.Errorf("line %d of the value has an error", i+1)
	digits, ok := bytes.CutPrefix(line, fmt.Appendf(nil, "Value %d: ", i+1))
	if !ok || len(digits) != 4*lineBytes/2+lineBytes/2-1+2+4 {
		return wrong
	}
	for k := range lineBytes / 2 {
		if _, err := hex.Decode(part[2*k:2*k+2], digits[5*k:5*k+4]); err != nil {
			return wrong
		}
	}
	var sum [2]byte
	want := lineSum(i, part)
	if _, err := hex.Decode(sum[:], digits[len(digits)-4:]); err != nil || !bytes.Equal(sum[:], want[:2]) {
		return wrong
	}
	return nil
}
