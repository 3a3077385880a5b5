package webhook

import (
	"crypto/tls"
	"crypto/x509"
	"errors"
	"net"
	"net/http"
	"syscall"
)

// failureOf says why an endpoint could not be asked, or gave no answer, in words of this package: net/http and crypto/x509
// quote what the other side sent, and its words must not reach the database or the log.
func failureOf(err error) error {
	var timeout net.Error
	var dns *net.DNSError
	var record tls.RecordHeaderError
	var alert tls.AlertError
	var number syscall.Errno
	switch {
	case errors.Is(err, ErrPrivate):
		return ErrPrivate
	case errors.As(err, new(x509.UnknownAuthorityError)):
		return errors.New("webhook: the endpoint's certificate is of an authority that is not trusted")
	case errors.As(err, new(x509.HostnameError)):
		return errors.New("webhook: the endpoint's certificate is for another host")
	case errors.As(err, new(x509.CertificateInvalidError)):
		return errors.New("webhook: the endpoint's certificate is not valid, or not any more")
	case errors.As(err, new(*tls.CertificateVerificationError)):
		return errors.New("webhook: the endpoint's certificate cannot be verified")
	case errors.As(err, &record), errors.Is(err, http.ErrSchemeMismatch):
		return errors.New("webhook: the endpoint does not speak TLS")
	case errors.As(err, &alert):
		return errors.New("webhook: the endpoint refused TLS: " + alert.Error())
	case errors.As(err, &timeout) && timeout.Timeout():
		return errors.New("webhook: the endpoint did not answer in time")
	case errors.As(err, &dns):
		return errors.New("webhook: the endpoint's host name cannot be resolved")
	case errors.As(err, &number):
		return errors.New("webhook: " + number.Error())
	default:
		return errors.New("webhook: the endpoint did not answer as HTTP wants it")
	}
}
