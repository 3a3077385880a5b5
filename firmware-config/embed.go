// Package firmwareconfig holds the files that an installation starts from.
package firmwareconfig

import "embed"

// Default is the documented configuration that `finpay init` copies into a state directory.
//
//go:embed finpay.yaml
var Default []byte

// Providers are the profiles of PKCS#11 providers, providers/NAME.yaml.
//
//go:embed providers/*.yaml
var Providers embed.FS
