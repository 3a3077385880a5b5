package hsm

import (
	"errors"
	"fmt"
	"net/url"
	"strconv"
	"strings"

	"github.com/tink-crypto/tink-go/v2/core/registry"
	"github.com/tink-crypto/tink-go/v2/tink"
)

// KMSClient makes the HSM a key management service for Tink (registry.KMSClient). A key is named by
//
//	hsm://<label of the hsm token>/<role>            encrypts under the active version, decrypts under any served one
//	hsm://<label of the hsm token>/<role>/<version>  that version alone
//
// Label and role are percent-encoded where they need to be. Only the roles that it was made for are served: a URI
// must not reach the keys that make tokens.
type KMSClient struct {
	e     *Engine
	roles map[Role][]Key // the active version first
}

var _ registry.KMSClient = (*KMSClient)(nil)

const uriScheme = "hsm://"

// ErrURI means that a URI names no key that is served here.
var ErrURI = errors.New("hsm: no key is served under this URI")

// KMSClient returns a client for the role of active; older are further versions of it.
func (e *Engine) KMSClient(active Key, older ...Key) *KMSClient {
	return &KMSClient{e, map[Role][]Key{active.Role: append([]Key{active}, older...)}}
}

// URI returns the URI of a role's key, whichever version is active.
func (c *KMSClient) URI(role Role) string {
	return uriScheme + url.PathEscape(c.e.label) + "/" + url.PathEscape(string(role))
}

// Supported implements registry.KMSClient.
func (c *KMSClient) Supported(uri string) bool {
	_, err := c.parse(uri)
	return err == nil
}

// GetAEAD implements registry.KMSClient.
func (c *KMSClient) GetAEAD(uri string) (tink.AEAD, error) {
	keys, err := c.parse(uri)
	if err != nil {
		return nil, err
	}
	return c.e.AEAD(keys[0], keys[1:]...), nil
}

// parse returns the versions that a URI names, the one to encrypt under first.
func (c *KMSClient) parse(uri string) ([]Key, error) {
	refused := func(why string) error {
		return fmt.Errorf("%w: %s; want %s%s/<role>", ErrURI, why, uriScheme, url.PathEscape(c.e.label))
	}
	// Not url.Parse: it takes no %20 in a host, and labels have spaces.
	rest, ok := strings.CutPrefix(uri, uriScheme)
	label, path, slash := strings.Cut(rest, "/")
	if !ok || !slash {
		return nil, refused("it is not of the form")
	}
	if label, err := url.PathUnescape(label); err != nil || label != c.e.label {
		return nil, refused("it names another hsm token")
	}
	name, version, exact := strings.Cut(path, "/")
	role, err := url.PathUnescape(name)
	if err != nil {
		return nil, refused("it is not of the form")
	}
	keys, ok := c.roles[Role(role)]
	if !ok {
		return nil, refused("it names another role")
	}
	if !exact {
		return keys, nil
	}
	n, err := strconv.ParseUint(version, 10, 32)
	if err != nil || strconv.FormatUint(n, 10) != version {
		return nil, refused("its version is not a number")
	}
	for _, key := range keys {
		if uint64(key.Version) == n {
			return []Key{key}, nil
		}
	}
	return nil, refused("it names a version that is not in use")
}
