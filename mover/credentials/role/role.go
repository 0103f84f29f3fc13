// Package role gets the credentials of a role that a process was given by its
// surroundings: by a token that stands for its service account (web identity),
// by a container's endpoint, or by the machine that it runs on. They last for
// some hours at most; whoever uses them asks again.
//
// Amazon's SDK speaks the protocols. This package says whom it asks, in which
// order and for how long, and returns the SDK all that it would look for by itself.
//
// It must not keep what it got, and reads tokens, roles, files and the network
// only through what it is given. No token and no key is ever part of an error.
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

	"github.com/aws/aws-sdk-go-v2/aws"
	"github.com/aws/aws-sdk-go-v2/credentials/ec2rolecreds"
	"github.com/aws/aws-sdk-go-v2/credentials/endpointcreds"
	"github.com/aws/aws-sdk-go-v2/credentials/stscreds"
	"github.com/aws/aws-sdk-go-v2/feature/ec2/imds"
	"github.com/aws/aws-sdk-go-v2/service/sts"
	smithyendpoints "github.com/aws/smithy-go/endpoints"

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
	// Env returns the variables of the environment.
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

// Credentials returns the credentials of the surroundings, in the order of Amazon's
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

// Assume exchanges the token of a web identity for the credentials of its role.
// The errors are those of Credentials.
func (r Surroundings) Assume(ctx context.Context, s settings.Settings, w WebIdentity) (settings.Credentials, error) {
	if w.Role == "" {
		return settings.Credentials{}, engine.Errorf(engine.CodeCredentialsInvalid,
			"there is a token for a role (%s) and no role that it is for (%s, or role_arn of a profile)", w.TokenFile, envRole)
	}

	token, err := r.token(w.TokenFile)
	if err != nil {
		return settings.Credentials{}, err
	}

	client, err := r.Client(s)
	if err != nil {
		return settings.Credentials{}, err
	}

	// A client of its own each time: once in an hour there is nothing to keep open.
	defer client.CloseIdleConnections()

	o := sts.Options{
		HTTPClient: newDoer(client, farTry), Retryer: retries(),
		Region: cmp.Or(s.Region, r.Env(envRegion), r.Env(envDefault), "aws-global"),
	}
	if address := r.Env(envSTS); address != "" {
		o.BaseEndpoint = &address
	}

	if r.Env(envSTSRegional) == "legacy" {
		o.EndpointResolverV2 = legacy{sts.NewDefaultEndpointResolverV2()}
	}

	return question{
		attempt: fmt.Sprintf("assume role %s with the token in %s", w.Role, w.TokenFile), token: token, silence: engine.CodeStoreUnavailable,
		provider: stscreds.NewWebIdentityRoleProvider(sts.New(o), w.Role, identity(token), func(o *stscreds.WebIdentityRoleOptions) {
			o.RoleSessionName = cmp.Or(w.Session, "estiba")
		}),
	}.ask(ctx)
}

// identity is a token that was read.
type identity string

// GetIdentityToken returns it to the library.
func (i identity) GetIdentityToken() ([]byte, error) { return []byte(i), nil }

// legacy sends the old regions to the one address that was there first.
type legacy struct{ sts.EndpointResolverV2 }

// ResolveEndpoint returns the address.
func (l legacy) ResolveEndpoint(ctx context.Context, p sts.EndpointParameters) (smithyendpoints.Endpoint, error) {
	p.UseGlobalEndpoint = aws.Bool(true)

	return l.EndpointResolverV2.ResolveEndpoint(ctx, p)
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

	return question{
		attempt: "ask the container's endpoint for credentials", token: token, silence: engine.CodeStoreUnavailable,
		provider: endpointcreds.New(address, func(o *endpointcreds.Options) {
			o.HTTPClient, o.Retryer, o.AuthorizationToken = newDoer(client, nearTry), retries(), token
		}),
	}.ask(ctx)
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

// machine asks for the role of the machine. Where nobody answers there is none.
func (r Surroundings) machine(ctx context.Context) (settings.Credentials, error) {
	client := imds.New(imds.Options{
		HTTPClient: newDoer(r.Near, nearTry), Retryer: retries(), DisableDefaultMaxBackoff: true,
		// Both are given, so that the library does not look for them in the environment.
		Endpoint: cmp.Or(r.Env(envMetadata), metadataHost), ClientEnableState: imds.ClientEnabled,
	})

	return question{
		attempt:  fmt.Sprintf("this pod was given no role (%s is not set): ask the machine's metadata for one", envTokenFile),
		provider: ec2rolecreds.New(func(o *ec2rolecreds.Options) { o.Client = client }),
		silence:  engine.CodeCredentialsInvalid,
	}.ask(ctx)
}

// token reads a token that is mounted.
func (r Surroundings) token(file string) (string, error) {
	content, err := r.File(file)
	if err != nil {
		return "", engine.Errorf(engine.CodeCredentialsInvalid, "read the token of this pod's role: %w", err)
	}

	return strings.TrimSpace(string(content)), nil
}
