// Package config is the appliance's configuration: one YAML file, read strictly. An unknown key, a value of the
// wrong type or a missing setting is an error that names the line or the setting.
//
// firmware-config/finpay.yaml documents every setting; the field names here are the same.
package config

import (
	"bytes"
	"crypto/sha256"
	"errors"
	"fmt"
	"io"
	"net"
	"net/url"
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"time"

	"go.yaml.in/yaml/v3"

	"github.com/finterra/finpay/hsm"
)

// FileName is the configuration's name in the state directory.
const FileName = "finpay.yaml"

// Config is the whole configuration. Paths are absolute after [Load].
type Config struct {
	Node             string      `yaml:"node"`
	Listen           string      `yaml:"listen"`
	PublicURL        string      `yaml:"public_url"`
	Monitor          string      `yaml:"monitor"`
	TLS              TLS         `yaml:"tls"`
	HSM              HSM         `yaml:"hsm"`
	AllowSoftwareHSM bool        `yaml:"allow_software_hsm"`
	Ledger           Ledger      `yaml:"ledger"`
	Custody          Custody     `yaml:"custody"`
	Intake           Intake      `yaml:"intake"`
	Checkout         Checkout    `yaml:"checkout"`
	Retention        Retention   `yaml:"retention"`
	Limits           Limits      `yaml:"limits"`
	Tokens           Tokens      `yaml:"tokens"`
	ThreeDS          ThreeDS     `yaml:"three_d_secure"`
	Connectors       []Connector `yaml:"connectors"`
	Webhooks         Webhooks    `yaml:"webhooks"`
	Audit            Audit       `yaml:"audit"`
	Log              Log         `yaml:"log"`
	Simulator        Simulator   `yaml:"simulator"`

	state  string
	digest string
}

// TLS of the API's listener.
type TLS struct {
	Key         string `yaml:"key"` // "hsm" or "file"
	Certificate string `yaml:"certificate"`
	KeyFile     string `yaml:"key_file"`
	ClientCert  string `yaml:"client_certificate"`
}

// HSM names the module and the hsm token.
type HSM struct {
	Provider      string            `yaml:"provider"` // a built-in profile, or the path of one
	Module        string            `yaml:"module"`
	Token         string            `yaml:"token"`
	PINFile       string            `yaml:"pin_file"`
	InitArgument  string            `yaml:"init_argument"`
	Environment   map[string]string `yaml:"environment"`
	Sessions      int               `yaml:"sessions"`
	BlockSessions int               `yaml:"block_sessions"`
	CallLimit     time.Duration     `yaml:"call_limit"`

	profile hsm.Profile
}

// Ledger names the signed log.
type Ledger struct {
	Origin string `yaml:"origin"`
	// Witnesses is the file of the witness policy; empty for none.
	Witnesses string `yaml:"witnesses"`
	// WitnessPeriod is the time between looks for a checkpoint that is not cosigned, WitnessPatience the time without the
	// quorum's cosignatures after which the gap is entered, WitnessTimeout that of one exchange.
	WitnessPeriod   time.Duration `yaml:"witness_period"`
	WitnessPatience time.Duration `yaml:"witness_patience"`
	WitnessTimeout  time.Duration `yaml:"witness_timeout"`
	// Check is the time between checks of all rows against the entries that cover them; 0 for none.
	Check time.Duration `yaml:"check"`
}

// The kinds of custody.
const (
	ObjectCustody = "objects" // session objects in the HSM
	SealedCustody = "sealed"  // encrypted in memory, under a key that exists in a session of the HSM alone
)

// Custody bounds the cards that are held.
type Custody struct {
	Kind     string        `yaml:"kind"` // after [Load] never empty
	Deadline time.Duration `yaml:"deadline"`
	Capacity int           `yaml:"capacity"`
}

// Intake is how cards enter.
type Intake struct {
	// Open lets cards come open inside TLS; otherwise they are taken sealed only.
	Open bool `yaml:"open"`
	// Rotate is the age at which the key that cards are sealed to is replaced, 0 for never but in ceremonies; Overlap is how
	// long a replaced one still opens.
	Rotate  time.Duration `yaml:"rotate"`
	Overlap time.Duration `yaml:"overlap"`
}

// Checkout is the shopper's session.
type Checkout struct {
	Session  time.Duration `yaml:"session"`
	Attempts int           `yaml:"attempts"`
	// Authorization is how long an authorization waits for its capture before it is voided; 0: for ever.
	Authorization time.Duration `yaml:"authorization"`
}

// Retention is how long is kept what the log does not cover; 0: for ever.
type Retention struct {
	Customers         time.Duration `yaml:"customers"`          // what belongs to people
	WebhookDeliveries time.Duration `yaml:"webhook_deliveries"` // what became of events
	IdempotencyKeys   time.Duration `yaml:"idempotency_keys"`   // with their first answers
}

// Limits are requests a second and bursts, by API key and by client address.
type Limits struct {
	KeyRate      float64 `yaml:"key_rate"`
	KeyBurst     int     `yaml:"key_burst"`
	AddressRate  float64 `yaml:"address_rate"`
	AddressBurst int     `yaml:"address_burst"`
	TokenRate    float64 `yaml:"token_rate"`
	TokenBurst   int     `yaml:"token_burst"`
	// RequestTime is in which a request must have come, with its body.
	RequestTime time.Duration `yaml:"request_time"`
}

// Tokens are the token spaces, and what guards them.
type Tokens struct {
	// Bound is how many different new cards of one first six and last four digits one API key may have tokenized in a
	// domain and day.
	Bound   int      `yaml:"bound"`
	Domains []Domain `yaml:"domains"`
	// RecipientDelay is how long after its registration a recipient gets no card.
	RecipientDelay time.Duration `yaml:"recipient_delay"`
}

// Domain is one token space.
type Domain struct {
	ID       string   `yaml:"id"`
	Format   string   `yaml:"format"`
	Fallback string   `yaml:"fallback"` // for PAN lengths that the format cannot serve; empty for none
	Accept   []string `yaml:"accept"`   // prefixes of the PANs that are taken; empty for all
	Sandbox  bool     `yaml:"sandbox"`  // for merchants of the sandbox, and for no others
}

// Webhooks bounds the delivery of notifications.
type Webhooks struct {
	AllowPrivate bool          `yaml:"allow_private"`
	CA           string        `yaml:"ca"`
	Timeout      time.Duration `yaml:"timeout"`
}

// Audit is the auditor's own listener.
type Audit struct {
	// Listen is where auditors with a certificate are served; empty for nowhere.
	Listen string `yaml:"listen"`
}

// Log is how the process logs.
type Log struct {
	Level  string `yaml:"level"`
	Format string `yaml:"format"`
}

// Simulator is where the counterparties of a trial listen; serve does not read it.
type Simulator struct {
	Acquirer string `yaml:"acquirer"`
	Web      string `yaml:"web"`
}

// Load reads the configuration file, or the state directory's own where file is empty.
func Load(file, state string) (Config, error) {
	if file == "" {
		file = filepath.Join(state, FileName)
	}
	text, err := os.ReadFile(file)
	if errors.Is(err, os.ErrNotExist) {
		return Config{}, fmt.Errorf("there is no configuration at %s: run `finpay init` first, or name one with --config: %w", file, os.ErrNotExist)
	}
	if err != nil {
		return Config{}, fmt.Errorf("read configuration: %w", err)
	}
	cfg, err := Parse(text, state)
	if err != nil {
		return Config{}, fmt.Errorf("configuration %s: %w", file, err)
	}
	return cfg, nil
}

// Parse reads a configuration. Relative paths, and ${STATE} in the HSM's environment, mean the state directory.
func Parse(text []byte, state string) (Config, error) {
	var cfg Config
	decoder := yaml.NewDecoder(bytes.NewReader(text))
	decoder.KnownFields(true)
	if err := decoder.Decode(&cfg); errors.Is(err, io.EOF) {
		return Config{}, errors.New("the file is empty")
	} else if err != nil {
		return Config{}, err
	}
	if err := decoder.Decode(&struct{}{}); !errors.Is(err, io.EOF) {
		return Config{}, errors.New("there is more than one document in the file")
	}
	abs, err := filepath.Abs(state)
	if err != nil {
		return Config{}, err
	}
	cfg.resolve(abs)
	for _, c := range cfg.Connectors {
		if c.ISO8583 != nil && c.ISO8583.SoftDeclines == nil {
			c.ISO8583.SoftDeclines = DefaultSoftDeclines
		}
	}
	profile, err := cfg.HSM.applyProvider(abs)
	if err != nil {
		return Config{}, err
	}
	if cfg.Custody.Kind == "" {
		cfg.Custody.Kind = ObjectCustody
		if cfg.HSM.profile.DataObjects == hsm.NoData {
			cfg.Custody.Kind = SealedCustody
		}
	}
	cfg.digest = fmt.Sprintf("%x", sha256.Sum256(slices.Concat(text, []byte{0}, profile)))
	return cfg, cfg.validate()
}

func (c *Config) resolve(state string) {
	c.state = state
	for _, path := range []*string{&c.TLS.Certificate, &c.TLS.KeyFile, &c.TLS.ClientCert, &c.HSM.PINFile, &c.Ledger.Witnesses, &c.Webhooks.CA} {
		if *path != "" && !filepath.IsAbs(*path) {
			*path = filepath.Join(state, *path)
		}
	}
	for i := range c.Connectors {
		c.Connectors[i].resolve(state)
	}
	for i := range c.ThreeDS.DirectoryServers {
		c.ThreeDS.DirectoryServers[i].resolve(state)
	}
	for name, value := range c.HSM.Environment {
		c.HSM.Environment[name] = strings.ReplaceAll(value, "${STATE}", state)
	}
}

// Digest returns the SHA-256 of the file's text, a zero byte and the text of the HSM's profile, in hex.
func (c *Config) Digest() string { return c.digest }

// State returns the absolute path of the state directory.
func (c *Config) State() string { return c.state }

// PINInState reports whether the HSM's PIN is kept beside the data that it protects.
func (c *Config) PINInState() bool {
	rel, err := filepath.Rel(c.state, c.HSM.PINFile)
	return err == nil && !strings.HasPrefix(rel, "..")
}

func (c *Config) validate() error {
	var wrong []error
	want := func(ok bool, setting, what string) {
		if !ok {
			wrong = append(wrong, fmt.Errorf("%s: %s", setting, what))
		}
	}
	oneOf := func(setting, value string, allowed ...string) {
		for _, a := range allowed {
			if value == a {
				return
			}
		}
		wrong = append(wrong, fmt.Errorf("%s: %q is not one of %s", setting, value, strings.Join(allowed, ", ")))
	}
	address := func(setting, value string) {
		_, port, err := net.SplitHostPort(value)
		want(err == nil && port != "", setting, fmt.Sprintf("%q is not host:port", value))
	}
	want(c.Node != "" && !strings.ContainsAny(c.Node, "+ \n/"), "node", "a name without spaces, + and / is wanted")
	want(c.Ledger.WitnessPeriod > 0 && c.Ledger.WitnessPatience > 0 && c.Ledger.WitnessTimeout > 0, "ledger.witness_…", "times of more than 0 are wanted")
	want(c.Ledger.Check == 0 || c.Ledger.Check >= time.Second, "ledger.check", "0 (never) or at least a second is wanted")
	want(c.Ledger.Origin != "" && !strings.ContainsAny(c.Ledger.Origin, "+ \n"), "ledger.origin", "a name without spaces and + is wanted")
	address("listen", c.Listen)
	address("monitor", c.Monitor)
	want(isLoopback(c.Monitor), "monitor", "health and metrics are served on a loopback address only")
	want(isURL(c.PublicURL, "https"), "public_url", "an https URL without a path is wanted")
	oneOf("tls.key", c.TLS.Key, "hsm", "file")
	want(c.TLS.Certificate != "", "tls.certificate", "missing")
	want(c.TLS.Key != "file" || c.TLS.KeyFile != "", "tls.key_file", "missing, though tls.key is file")
	want(c.HSM.Provider != "", "hsm.provider", "missing")
	want(c.HSM.Provider == "" || c.HSM.Module != "", "hsm.module", "missing, and the profile names no place of the library")
	want(c.HSM.Token != "", "hsm.token", "missing")
	want(c.HSM.PINFile != "", "hsm.pin_file", "missing")
	want(c.HSM.Sessions >= 0 && c.HSM.Sessions <= 256, "hsm.sessions", "1 to 256 are allowed")
	want(c.HSM.BlockSessions >= 0 && c.HSM.BlockSessions <= 256, "hsm.block_sessions", "1 to 256 are allowed")
	want(c.HSM.CallLimit == 0 || c.HSM.CallLimit >= time.Second, "hsm.call_limit", "at least 1s is wanted")
	oneOf("custody.kind", c.Custody.Kind, ObjectCustody, SealedCustody)
	want(c.Custody.Deadline >= time.Minute && c.Custody.Deadline <= time.Hour, "custody.deadline", "1m to 1h are allowed")
	want(c.Custody.Capacity > 0, "custody.capacity", "at least 1 is wanted")
	want(c.Intake.Rotate == 0 || c.Intake.Rotate >= time.Minute, "intake.rotate", "0 (in ceremonies only) or at least 1m is wanted")
	want(c.Intake.Overlap >= c.Checkout.Session, "intake.overlap", "at least checkout.session is wanted: a shopper's page seals to the key that it was shown with")
	want(c.Checkout.Session >= time.Minute && c.Checkout.Session <= 24*time.Hour, "checkout.session", "1m to 24h are allowed")
	want(c.Checkout.Authorization == 0 || c.Checkout.Authorization >= time.Hour, "checkout.authorization", "0 (for ever) or at least 1h is wanted")
	want(c.Checkout.Attempts >= 1 && c.Checkout.Attempts <= 20, "checkout.attempts", "1 to 20 are allowed")
	want(c.Retention.Customers == 0 || c.Retention.Customers >= c.Checkout.Session, "retention.customers", "0 (for ever) or at least checkout.session is wanted: 3-D Secure tells the issuer of them")
	want(c.Retention.WebhookDeliveries == 0 || c.Retention.WebhookDeliveries >= 24*time.Hour, "retention.webhook_deliveries", "0 (for ever) or at least 24h is wanted")
	want(c.Retention.IdempotencyKeys == 0 || c.Retention.IdempotencyKeys >= 24*time.Hour, "retention.idempotency_keys", "0 (for ever) or at least 24h is wanted: a repeat that comes later is a new request")
	want(c.Limits.KeyRate > 0 && c.Limits.KeyBurst > 0, "limits.key_rate, limits.key_burst", "more than 0 is wanted")
	want(c.Limits.AddressRate > 0 && c.Limits.AddressBurst > 0, "limits.address_rate, limits.address_burst", "more than 0 is wanted")
	want(c.Limits.TokenRate > 0 && c.Limits.TokenBurst > 0, "limits.token_rate, limits.token_burst", "more than 0 is wanted")
	want(c.Limits.RequestTime >= time.Second && c.Limits.RequestTime <= 5*time.Minute, "limits.request_time", "1s to 5m are allowed")
	want(c.Tokens.Bound >= 1 && c.Tokens.Bound <= 200, "tokens.bound", "1 to 200 are allowed")
	want(c.Tokens.RecipientDelay >= 0, "tokens.recipient_delay", "0 or more is wanted")
	want(len(c.Tokens.Domains) > 0, "tokens.domains", "at least one is wanted")
	oneOf("three_d_secure.unavailable", c.ThreeDS.Unavailable, "proceed", "refuse")
	wrong = append(wrong, validateDirectoryServers(c.ThreeDS.DirectoryServers)...)
	want(c.ThreeDS.Challenge > 0 && c.ThreeDS.Challenge <= c.Custody.Deadline, "three_d_secure.challenge", "more than 0 and at most custody.deadline is wanted: the card is held that long")
	wrong = append(wrong, validateConnectors(c.Connectors)...)
	want(c.Webhooks.Timeout > 0, "webhooks.timeout", "more than 0 is wanted")
	if c.Audit.Listen != "" {
		address("audit.listen", c.Audit.Listen)
	}
	oneOf("log.level", c.Log.Level, "debug", "info", "warn", "error")
	oneOf("log.format", c.Log.Format, "text", "json")
	return errors.Join(wrong...)
}

var (
	numericCountry = regexp.MustCompile(`^([0-9]{3})?$`)
	declineCode    = regexp.MustCompile(`^([0-9A-Z]{2}|[12][0-9]{2})$`)
)

func isLoopback(address string) bool {
	host, _, err := net.SplitHostPort(address)
	if err != nil {
		return false
	}
	ip := net.ParseIP(host)
	return host == "localhost" || (ip != nil && ip.IsLoopback())
}

func isURL(s, scheme string) bool {
	u, err := url.Parse(s)
	return err == nil && u.Scheme == scheme && u.Host != ""
}
