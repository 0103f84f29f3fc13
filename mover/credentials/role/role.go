// Package role gets the credentials of a role that a process was given by its
// surroundings: by a token that stands for its service account (web identity),
// by a container's endpoint, or by the machine that it runs on. They last for
// some hours at most; whoever uses them asks again.
//
// It must not keep what it got, and reads variables, files and the network only
// through what it is given. No token and no key is ever part of an error.
package role

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"net/http"
	"net/netip"
	"net/url"
	"strings"
	"time"

	"github.com/estiba-dev/estiba/mover/engine"
	"github.com/estiba-dev/estiba/mover/store/settings"
)

// The variables that count. They are those of Amazon's own libraries, and the
// webhooks of clusters set them in pods whose service account has a role.
const (
	envAccessKey    = "AWS_ACCESS_KEY_ID"
	envSecretKey    = "AWS_SECRET_ACCESS_KEY"
	envSessionToken = "AWS_SESSION_TOKEN"

	envTokenFile   = "AWS_WEB_IDENTITY_TOKEN_FILE"
	envRole        = "AWS_ROLE_ARN"
	envSession     = "AWS_ROLE_SESSION_NAME"
	envSTS         = "AWS_ENDPOINT_URL_STS"
	envSTSRegional = "AWS_STS_REGIONAL_ENDPOINTS"
	envRegion      = "AWS_REGION"
	envDefault     = "AWS_DEFAULT_REGION"

	envContainerPath      = "AWS_CONTAINER_CREDENTIALS_RELATIVE_URI"
	envContainerURL       = "AWS_CONTAINER_CREDENTIALS_FULL_URI"
	envContainerToken     = "AWS_CONTAINER_AUTHORIZATION_TOKEN"
	envContainerTokenFile = "AWS_CONTAINER_AUTHORIZATION_TOKEN_FILE"

	envNoMetadata = "AWS_EC2_METADATA_DISABLED"
	envMetadata   = "AWS_EC2_METADATA_SERVICE_ENDPOINT"
)

const (
	containerHost = "http://169.254.170.2"
	metadataHost  = "http://169.254.169.254"
)

// Surroundings are what a process may get a role from.
type Surroundings struct {
	// Env gives the variables of the environment.
	Env func(name string) string
	// File reads a token. They are replaced while the process runs, so that they are read each time.
	File func(name string) ([]byte, error)
	// Client makes what speaks to the service that hands out roles for a store:
	// it trusts whom the store's location trusts.
	Client func(s settings.Settings) (*http.Client, error)
	// Near speaks to this machine and its link. It must not go through a proxy.
	Near *http.Client
}

// WebIdentity is a role, and the token that shows who asks for it.
type WebIdentity struct {
	// Role is its ARN.
	Role string
	// TokenFile is where the token is mounted.
	TokenFile string
	// Session names the session in the provider's logs; empty for "estiba".
	Session string
}

// Credentials gives the credentials of the surroundings, in the order of Amazon's
// libraries: the variables for keys, web identity, a container's endpoint, the
// machine's own role. The error is CredentialsInvalid where there are none or
// where they were refused, and StoreUnavailable where asking again may help.
func (r Surroundings) Credentials(ctx context.Context, s settings.Settings) (settings.Credentials, error) {
	keys := settings.Credentials{AccessKeyID: r.Env(envAccessKey), SecretAccessKey: r.Env(envSecretKey), SessionToken: r.Env(envSessionToken)}

	switch {
	case keys.AccessKeyID != "" && keys.SecretAccessKey != "":
		return keys, nil
	case r.Env(envTokenFile) != "":
		return r.Assume(ctx, s, WebIdentity{Role: r.Env(envRole), TokenFile: r.Env(envTokenFile), Session: r.Env(envSession)})
	case r.Env(envContainerPath) != "":
		return r.container(ctx, containerHost+r.Env(envContainerPath))
	case r.Env(envContainerURL) != "":
		return r.container(ctx, r.Env(envContainerURL))
	case strings.EqualFold(r.Env(envNoMetadata), "true"):
		return settings.Credentials{}, engine.Errorf(engine.CodeCredentialsInvalid,
			"this pod was given no role (%s is not set), and %s keeps it from asking for the machine's", envTokenFile, envNoMetadata)
	default:
		return r.machine(ctx)
	}
}

// container asks the endpoint of a container, as Amazon's agents for pods and tasks serve it.
func (r Surroundings) container(ctx context.Context, address string) (settings.Credentials, error) {
	client, err := r.clientFor(address)
	if err != nil {
		return settings.Credentials{}, engine.Errorf(engine.CodeCredentialsInvalid, "%s: %w", envContainerURL, err)
	}

	token := r.Env(envContainerToken)
	if file := r.Env(envContainerTokenFile); file != "" {
		if token, err = r.token(file); err != nil {
			return settings.Credentials{}, err
		}
	}

	q := question{client: client, method: http.MethodGet, url: address, header: http.Header{}}
	if token != "" {
		q.header.Set("Authorization", token)
	}

	body, err := q.ask(ctx)
	if err != nil {
		return settings.Credentials{}, wrap("ask the container's endpoint for credentials", err)
	}

	return parseJSON(body)
}

// clientFor sends a token over TLS, or to an address of this machine or its link, and nowhere else.
func (r Surroundings) clientFor(address string) (*http.Client, error) {
	u, err := url.Parse(address)
	if err != nil {
		return nil, errors.New("it is not a URL")
	}

	ip, err := netip.ParseAddr(u.Hostname())
	near := u.Hostname() == "localhost" || err == nil && (ip.IsLoopback() || ip.IsLinkLocalUnicast() || ip == netip.MustParseAddr("fd00:ec2::23"))

	switch {
	case near:
		return r.Near, nil
	case u.Scheme == "https":
		return r.Client(settings.Settings{})
	default:
		return nil, fmt.Errorf("%s is neither https nor an address of this machine or its link", u.Host)
	}
}

// machineTries is how often a machine's metadata are asked for: the service is
// known to drop requests when many processes start at once.
const (
	machineTries   = 3
	machinePerTry  = 2 * time.Second
	metadataToken  = "/latest/api/token"
	metadataRoles  = "/latest/meta-data/iam/security-credentials/"
	headerToken    = "X-Aws-Ec2-Metadata-Token"
	headerLifetime = "X-Aws-Ec2-Metadata-Token-Ttl-Seconds"
)

// machine asks for the role of the machine.
func (r Surroundings) machine(ctx context.Context) (c settings.Credentials, err error) {
	host := strings.TrimSuffix(cmp.Or(r.Env(envMetadata), metadataHost), "/")

	for range machineTries {
		c, err = r.askMachine(ctx, host)
		if err == nil || answered(err) || ctx.Err() != nil {
			break
		}
	}

	switch {
	case err == nil:
		return c, nil
	case answered(err):
		return c, wrap("ask the machine's metadata for its role", err)
	default:
		return c, engine.Errorf(engine.CodeCredentialsInvalid,
			"this pod was given no role (%s is not set), and the machine's metadata don't answer: %w", envTokenFile, err)
	}
}

func (r Surroundings) askMachine(ctx context.Context, host string) (settings.Credentials, error) {
	ctx, cancel := context.WithTimeout(ctx, machinePerTry)
	defer cancel()

	header := http.Header{}

	token, err := question{
		client: r.Near, method: http.MethodPut, url: host + metadataToken, header: http.Header{headerLifetime: {"300"}},
	}.ask(ctx)

	switch status := statusOf(err); {
	case err == nil:
		header.Set(headerToken, string(token))
	case status == http.StatusNotFound || status == http.StatusForbidden || status == http.StatusMethodNotAllowed:
		// The first version of the service, and what stands in for it, know no tokens.
	default:
		return settings.Credentials{}, err
	}

	get := func(path string) ([]byte, error) {
		return question{client: r.Near, method: http.MethodGet, url: host + path, header: header}.ask(ctx)
	}

	roles, err := get(metadataRoles)
	if err != nil {
		return settings.Credentials{}, err
	}

	name, _, _ := strings.Cut(strings.TrimSpace(string(roles)), "\n")
	if name == "" {
		return settings.Credentials{}, &answerError{code: "NoRole", message: "the machine has no role"}
	}

	body, err := get(metadataRoles + url.PathEscape(name))
	if err != nil {
		return settings.Credentials{}, err
	}

	return parseJSON(body)
}

// token reads a token that is mounted.
func (r Surroundings) token(file string) (string, error) {
	content, err := r.File(file)
	if err != nil {
		return "", engine.Errorf(engine.CodeCredentialsInvalid, "read the token of this pod's role: %w", err)
	}

	return strings.TrimSpace(string(content)), nil
}
