package config

import (
	"fmt"
	"net"
	"path/filepath"
	"slices"
	"strings"
	"time"
)

// ThreeDS is 3-D Secure.
type ThreeDS struct {
	Unavailable string        `yaml:"unavailable"` // "proceed" or "refuse"
	Challenge   time.Duration `yaml:"challenge"`
	// DirectoryServers are those of the schemes: the first that takes a card is asked.
	DirectoryServers []DirectoryServer `yaml:"directory_servers"`
}

// DirectoryServer is one scheme's.
type DirectoryServer struct {
	Name            string   `yaml:"name"`
	Sandbox         bool     `yaml:"sandbox"`
	Brands          []string `yaml:"brands"` // whose cards it is asked about; empty: all
	URL             string   `yaml:"url"`
	CA              string   `yaml:"ca"`
	ResultsListen   string   `yaml:"results_listen"`
	ResultsURL      string   `yaml:"results_url"`
	ServerRefNumber string   `yaml:"server_ref_number"`
	OperatorID      string   `yaml:"operator_id"`
	Versions        []string `yaml:"versions"` // of the protocol; nil for all that are known
	// CardSecurityCode sends the CVV to the issuer with the authentication, where version 2.3.1 is spoken.
	CardSecurityCode bool          `yaml:"card_security_code"`
	AcquirerCountry  string        `yaml:"acquirer_country"` // ISO 3166-1 numeric; empty where it is the merchants'
	UnknownRange     string        `yaml:"unknown_range"`    // "proceed" or "refuse"
	Timeout          time.Duration `yaml:"timeout"`
}

func (d *DirectoryServer) resolve(state string) {
	if d.CA != "" && !filepath.IsAbs(d.CA) {
		d.CA = filepath.Join(state, d.CA)
	}
}

func validateDirectoryServers(servers []DirectoryServer) (wrong []error) {
	if len(servers) == 0 {
		return []error{fmt.Errorf("three_d_secure.directory_servers: at least one is wanted")}
	}
	names, addresses := make(map[string]bool), make(map[string]bool)
	for i, d := range servers {
		at := fmt.Sprintf("three_d_secure.directory_servers[%d] (%s)", i, d.Name)
		if names[d.Name] {
			wrong = append(wrong, fmt.Errorf("%s.name: another directory server has it", at))
		}
		if addresses[d.ResultsListen] {
			wrong = append(wrong, fmt.Errorf("%s.results_listen: another directory server has it, and clients of its own authority alone are let in there", at))
		}
		names[d.Name], addresses[d.ResultsListen] = true, true
		for _, what := range d.validate() {
			wrong = append(wrong, fmt.Errorf("%s.%s", at, what))
		}
	}
	return wrong
}

// validate says what is wrong with one directory server, in a setting's name and a sentence each.
func (d *DirectoryServer) validate() (wrong []string) {
	want := func(ok bool, what string) {
		if !ok {
			wrong = append(wrong, what)
		}
	}
	want(connectorName.MatchString(d.Name), "name: 1 to 40 lower case letters, digits and dashes are wanted, a letter first")
	for _, brand := range d.Brands {
		want(slices.Contains(brands, brand), fmt.Sprintf("brands: %q is not one of %s", brand, strings.Join(brands, ", ")))
	}
	want(isURL(d.URL, "https"), "url: an https URL is wanted")
	want(isURL(d.ResultsURL, "https"), "results_url: an https URL is wanted")
	want(d.CA != "", "ca: missing: results are taken from clients of this authority only")
	_, port, err := net.SplitHostPort(d.ResultsListen)
	want(err == nil && port != "", fmt.Sprintf("results_listen: %q is not host:port", d.ResultsListen))
	want(d.UnknownRange == "proceed" || d.UnknownRange == "refuse", fmt.Sprintf("unknown_range: %q is not one of proceed, refuse", d.UnknownRange))
	for _, v := range d.Versions {
		want(v == "2.2.0" || v == "2.3.1", fmt.Sprintf("versions: %q is not one of 2.2.0, 2.3.1", v))
	}
	want(d.Versions == nil || len(d.Versions) > 0, "versions: at least one is wanted")
	want(numericCountry.MatchString(d.AcquirerCountry), "acquirer_country: three digits (ISO 3166-1) or nothing is wanted")
	want(d.Timeout > 0, "timeout: more than 0 is wanted")
	return wrong
}
