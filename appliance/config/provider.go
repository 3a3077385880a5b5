package config

import (
	"bytes"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path"
	"path/filepath"
	"strings"

	"go.yaml.in/yaml/v3"

	firmwareconfig "github.com/finterra/finpay/firmware-config"
	"github.com/finterra/finpay/hsm"
)

// Providers returns the names of the profiles that are built in.
func Providers() []string {
	files, err := fs.Glob(firmwareconfig.Providers, "providers/*.yaml")
	if err != nil {
		panic(err) // the pattern is above
	}
	names := make([]string, len(files))
	for i, file := range files {
		names[i] = strings.TrimSuffix(path.Base(file), ".yaml")
	}
	return names
}

// Provider reads a profile: one that is built in, by its name, or a file, by a path that has a slash or ends in .yaml.
// ${STATE} in its texts, and a relative path, mean the state directory. It also returns the file's text.
func Provider(name, state string) (hsm.Profile, []byte, error) {
	text, err := readProvider(name, state)
	if err != nil {
		return hsm.Profile{}, nil, err
	}
	var profile hsm.Profile
	decoder := yaml.NewDecoder(bytes.NewReader(text))
	decoder.KnownFields(true)
	if err := decoder.Decode(&profile); err != nil {
		return hsm.Profile{}, nil, fmt.Errorf("profile %s: %w", name, err)
	}
	if err := decoder.Decode(&struct{}{}); !errors.Is(err, io.EOF) {
		return hsm.Profile{}, nil, fmt.Errorf("profile %s: there is more than one document in the file", name)
	}
	profile.InitArgument = strings.ReplaceAll(profile.InitArgument, "${STATE}", state)
	for variable, value := range profile.Environment {
		profile.Environment[variable] = strings.ReplaceAll(value, "${STATE}", state)
	}
	if profile.Name == "" {
		err = errors.New("name: missing")
	}
	if err := errors.Join(err, profile.Check()); err != nil {
		return hsm.Profile{}, nil, fmt.Errorf("profile %s: %w", name, err)
	}
	return profile, text, nil
}

func readProvider(name, state string) ([]byte, error) {
	if strings.ContainsRune(name, '/') || strings.HasSuffix(name, ".yaml") {
		if !filepath.IsAbs(name) {
			name = filepath.Join(state, name)
		}
		text, err := os.ReadFile(name)
		if err != nil {
			return nil, fmt.Errorf("profile: %w", err)
		}
		return text, nil
	}
	text, err := firmwareconfig.Providers.ReadFile("providers/" + name + ".yaml")
	if err != nil {
		return nil, fmt.Errorf("%q is no profile; there are %s, or name a file of your own by its path", name, strings.Join(Providers(), ", "))
	}
	return text, nil
}

// applyProvider fills in what the configuration leaves to the profile. What it says itself wins.
func (h *HSM) applyProvider(state string) (text []byte, err error) {
	if h.Provider == "" {
		return nil, nil // validate says so
	}
	if h.profile, text, err = Provider(h.Provider, state); err != nil {
		return nil, fmt.Errorf("hsm.provider: %w", err)
	}
	if h.Module == "" {
		h.Module = firstFile(h.profile.Modules)
	}
	h.InitArgument = strings.ReplaceAll(h.InitArgument, "${STATE}", state)
	if h.InitArgument == "" {
		h.InitArgument = h.profile.InitArgument
	}
	if h.Environment == nil {
		h.Environment = make(map[string]string)
	}
	for name, value := range h.profile.Environment {
		if _, own := h.Environment[name]; !own {
			h.Environment[name] = value
		}
	}
	return text, nil
}

// firstFile returns the first path that is there; where none is, the first one, so that opening it says what is missing.
func firstFile(paths []string) string {
	for _, p := range paths {
		if _, err := os.Stat(p); err == nil {
			return p
		}
	}
	if len(paths) == 0 {
		return ""
	}
	return paths[0]
}

// Profile returns what is particular to the provider.
func (h HSM) Profile() hsm.Profile { return h.profile }
