package main

import (
	"context"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"slices"
	"strings"

	"github.com/finterra/finpay/hsm"
	"github.com/finterra/finpay/pci/ff1"
)

// ff1Vector is one published test of FF1. Digits and texts are in the alphabet of the radix, key and tweak in hex.
type ff1Vector struct {
	N          int     `json:"n"`
	Key        string  `json:"key"`
	Radix      int     `json:"radix"`
	Tweak      string  `json:"tweak"`
	Plaintext  *string `json:"plaintext"`
	Ciphertext *string `json:"ciphertext"`
	Result     string  `json:"result"` // "invalid": the inputs must be refused
}

// ff1Report counts what became of the vectors.
type ff1Report struct {
	Passed  int `json:"passed"`
	Failed  int `json:"failed"`
	Skipped int `json:"skipped"` // of another radix, or not tried because the HSM takes no plain keys

	failures []string
	notes    []string
}

// readVectors reads a file of FF1 vectors.
func readVectors(path string) ([]ff1Vector, error) {
	text, err := os.ReadFile(path)
	if err != nil {
		return nil, fmt.Errorf("FF1 vectors: %w", err)
	}
	var file struct {
		Method  string      `json:"method"`
		Samples []ff1Vector `json:"samples"`
	}
	if err := json.Unmarshal(text, &file); err != nil {
		return nil, fmt.Errorf("FF1 vectors in %s: %w", path, err)
	}
	if file.Method != "" && file.Method != "FF1" {
		return nil, fmt.Errorf("FF1 vectors in %s: the method is %q, not FF1", path, file.Method)
	}
	if len(file.Samples) == 0 {
		return nil, fmt.Errorf("FF1 vectors in %s: there are no samples", path)
	}
	return file.Samples, nil
}

// runVectors takes each vector of radix 10 through FF1 whose AES is done by the HSM, in both directions, under the
// vector's key as a session object.
func runVectors(ctx context.Context, engine *hsm.Engine, vectors []ff1Vector) ff1Report {
	var report ff1Report
	radix, refused := 0, 0
	for i, v := range vectors {
		if v.N == 0 {
			v.N = i + 1
		}
		if v.Radix == 0 && v.Result != "invalid" {
			report.Failed++
			report.failures = append(report.failures, fmt.Sprintf("FF1 vector %d: its radix is missing in the file", v.N))
			continue
		}
		if v.Radix != 10 && v.Radix != 0 {
			report.Skipped++
			radix++
			continue
		}
		err := v.run(ctx, engine)
		switch {
		case errors.Is(err, hsm.ErrImport):
			report.Skipped++
			refused++
		case err != nil:
			report.Failed++
			report.failures = append(report.failures, fmt.Sprintf("FF1 vector %d: %v", v.N, err))
		default:
			report.Passed++
		}
	}
	if radix > 0 {
		report.notes = append(report.notes, fmt.Sprintf("%d of another radix than 10, which cards have", radix))
	}
	if refused > 0 {
		report.notes = append(report.notes, fmt.Sprintf("%d because this HSM takes no AES keys in plain, not even for a session", refused))
	}
	return report
}

func (v ff1Vector) run(ctx context.Context, engine *hsm.Engine) error {
	switch v.Result {
	case "", "valid":
	case "invalid":
		return v.refused(ctx, engine)
	default:
		return fmt.Errorf("its result %q is neither valid nor invalid", v.Result)
	}
	if v.Plaintext == nil || v.Ciphertext == nil {
		return errors.New("plaintext or ciphertext is missing in the file")
	}
	got, err := v.crypt(ctx, engine, (*ff1.Cipher).Encrypt, *v.Plaintext)
	if err != nil {
		return fmt.Errorf("encryption: %w", err)
	}
	if got != *v.Ciphertext {
		return fmt.Errorf("encryption gives %s, want %s", got, *v.Ciphertext)
	}
	if got, err = v.crypt(ctx, engine, (*ff1.Cipher).Decrypt, *v.Ciphertext); err != nil {
		return fmt.Errorf("decryption: %w", err)
	}
	if got != *v.Plaintext {
		return fmt.Errorf("decryption gives %s, want %s", got, *v.Plaintext)
	}
	return nil
}

// refused wants an error for the input: the plaintext, or the ciphertext where the vector has no plaintext. An HSM that
// is away has refused nothing.
func (v ff1Vector) refused(ctx context.Context, engine *hsm.Engine) error {
	input, crypt := v.Plaintext, (*ff1.Cipher).Encrypt
	if input == nil {
		input, crypt = v.Ciphertext, (*ff1.Cipher).Decrypt
	}
	if input == nil {
		return errors.New("plaintext and ciphertext are missing in the file")
	}
	_, err := v.crypt(ctx, engine, crypt, *input)
	switch {
	case err == nil:
		return errors.New("an invalid input was accepted")
	case errors.Is(err, errHSM):
		return err
	default:
		return nil
	}
}

// errHSM marks what is the HSM's error, and so no refusal of an input.
var errHSM = errors.New("the HSM")

// marked is an encrypter whose errors are errHSM.
type marked struct{ ff1.Encrypter }

func (m marked) EncryptBlocks(ctx context.Context, dst, src []byte) error {
	if err := m.Encrypter.EncryptBlocks(ctx, dst, src); err != nil {
		return fmt.Errorf("%w: %w", errHSM, err)
	}
	return nil
}

func (v ff1Vector) crypt(ctx context.Context, engine *hsm.Engine, crypt func(*ff1.Cipher, context.Context, []ff1.Lane) error, input string) (string, error) {
	if v.Radix != 10 {
		return "", fmt.Errorf("radix %d", v.Radix)
	}
	key, err := hex.DecodeString(strings.TrimSpace(v.Key))
	if err != nil {
		return "", errors.New("its key is not hexadecimal")
	}
	tweak, err := hex.DecodeString(v.Tweak)
	if err != nil {
		return "", errors.New("its tweak is not hexadecimal")
	}
	if !slices.Contains([]int{16, 24, 32}, len(key)) {
		return "", fmt.Errorf("its key has %d bytes", len(key))
	}
	throwaway, err := engine.Throwaway(ctx, key)
	if err != nil {
		return "", fmt.Errorf("%w: %w", errHSM, err)
	}
	defer throwaway.Close()
	aes := marked{throwaway}
	cipher := ff1.New(aes, 1)
	defer cipher.Close()
	lane := ff1.Lane{Digits: []byte(input), Tweak: tweak}
	if err := crypt(cipher, ctx, []ff1.Lane{lane}); err != nil {
		return "", err
	}
	return string(lane.Digits), nil
}
