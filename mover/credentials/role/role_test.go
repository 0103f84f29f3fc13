package role_test

import (
	"context"
	"fmt"
	"io"
	"io/fs"
	"net/http"
	"net/http/httptest"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/estiba-dev/estiba/mover/credentials/role"
	"github.com/estiba-dev/estiba/mover/engine"
	"github.com/estiba-dev/estiba/mover/store/settings"
)

const (
	stsAnswer = `<AssumeRoleWithWebIdentityResponse xmlns="https://sts.amazonaws.com/doc/2011-06-15/"><AssumeRoleWithWebIdentityResult>
  <SubjectFromWebIdentityToken>system:serviceaccount:velero:estiba-node</SubjectFromWebIdentityToken>
  <Credentials><SessionToken>T</SessionToken><SecretAccessKey>S</SecretAccessKey><Expiration>2030-01-02T03:04:05Z</Expiration><AccessKeyId>ASIA</AccessKeyId></Credentials>
</AssumeRoleWithWebIdentityResult></AssumeRoleWithWebIdentityResponse>`
	stsRefusal = `<ErrorResponse xmlns="https://sts.amazonaws.com/doc/2011-06-15/"><Error><Type>Sender</Type><Code>%s</Code><Message>said so</Message></Error></ErrorResponse>`
	stsEmpty   = `<AssumeRoleWithWebIdentityResponse><AssumeRoleWithWebIdentityResult><Credentials/></AssumeRoleWithWebIdentityResult></AssumeRoleWithWebIdentityResponse>`
	jsonAnswer = `{"Code":"Success","AccessKeyId":"ASIA","SecretAccessKey":"S","Token":"T","Expiration":"2030-01-02T03:04:05Z"}`
	// jwt stands for the token of a service account.
	jwt = "header.payload.signature-that-nobody-may-see"
)

// granted is what both answers hold.
func granted() settings.Credentials {
	return settings.Credentials{AccessKeyID: "ASIA", SecretAccessKey: "S", SessionToken: "T", Expires: time.Date(2030, 1, 2, 3, 4, 5, 0, time.UTC)}
}

// transport answers in the place of all servers.
type transport func(*http.Request) (int, string, error)

func (f transport) RoundTrip(r *http.Request) (*http.Response, error) {
	status, body, err := f(r)
	if err != nil {
		return nil, err
	}

	return &http.Response{
		StatusCode: status, Body: io.NopCloser(strings.NewReader(body)), Request: r,
		Header: http.Header{"Location": {"https://elsewhere.example/"}},
	}, nil
}

// surroundings makes surroundings with variables, whose servers are far (by proxy and TLS) and near.
func surroundings(env map[string]string, far, near transport) role.Surroundings {
	return role.Surroundings{
		Env: func(name string) string { return env[name] },
		File: func(name string) ([]byte, error) {
			if name == "/token" {
				return []byte(jwt + "\n"), nil
			}

			return nil, fmt.Errorf("open %s: %w", name, fs.ErrNotExist)
		},
		Client: func(settings.Settings) (*http.Client, error) { return &http.Client{Transport: far}, nil },
		Near:   &http.Client{Transport: near},
	}
}

func nobody(r *http.Request) (int, string, error) {
	return 0, "", fmt.Errorf("nobody may ask %s", r.URL)
}

func webIdentity(more ...string) map[string]string {
	env := map[string]string{"AWS_WEB_IDENTITY_TOKEN_FILE": "/token", "AWS_ROLE_ARN": "arn:aws:iam::1:role/estiba"}
	for i := 0; i < len(more); i += 2 {
		env[more[i]] = more[i+1]
	}

	return env
}

func TestAWebIdentityIsExchangedForARole(t *testing.T) {
	t.Parallel()

	for name, c := range map[string]struct {
		env         map[string]string
		region, url string
	}{
		"in the location's region":       {webIdentity("AWS_REGION", "us-1"), "eu-central-1", "https://sts.eu-central-1.amazonaws.com/"},
		"in the pod's region":            {webIdentity("AWS_REGION", "eu-west-1", "AWS_DEFAULT_REGION", "x"), "", "https://sts.eu-west-1.amazonaws.com/"},
		"in another partition":           {webIdentity("AWS_STS_REGIONAL_ENDPOINTS", "legacy"), "cn-north-1", "https://sts.cn-north-1.amazonaws.com.cn/"},
		"at the one address of old":      {webIdentity("AWS_STS_REGIONAL_ENDPOINTS", "legacy"), "eu-central-1", "https://sts.amazonaws.com/"},
		"in no region that is known":     {webIdentity(), "", "https://sts.amazonaws.com/"},
		"at an address of somebody's":    {webIdentity("AWS_ENDPOINT_URL_STS", "https://minio.example:9000"), "eu-central-1", "https://minio.example:9000/"},
		"under a name for the session":   {webIdentity("AWS_ROLE_SESSION_NAME", "me"), "", "https://sts.amazonaws.com/"},
		"and goes before other offers":   {webIdentity("AWS_CONTAINER_CREDENTIALS_FULL_URI", "http://127.0.0.1/x"), "", "https://sts.amazonaws.com/"},
		"and keys halfway given are not": {webIdentity("AWS_ACCESS_KEY_ID", "half"), "", "https://sts.amazonaws.com/"},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()

			asked := 0
			s := surroundings(c.env, func(r *http.Request) (int, string, error) {
				asked++

				assert.Equal(t, c.url, r.URL.String())
				assert.Equal(t, http.MethodPost, r.Method)
				if err := r.ParseForm(); err != nil {
					return 0, "", err
				}

				assert.Equal(t, "AssumeRoleWithWebIdentity", r.PostForm.Get("Action"))
				assert.Equal(t, "arn:aws:iam::1:role/estiba", r.PostForm.Get("RoleArn"))
				assert.Equal(t, jwt, r.PostForm.Get("WebIdentityToken"))
				assert.Equal(t, map[bool]string{true: "me", false: "estiba"}[c.env["AWS_ROLE_SESSION_NAME"] != ""], r.PostForm.Get("RoleSessionName"))

				return http.StatusOK, stsAnswer, nil
			}, nobody)

			got, err := s.Credentials(t.Context(), settings.Settings{Region: c.region})
			require.NoError(t, err)
			assert.Equal(t, granted(), got)
			assert.Equal(t, 1, asked)
		})
	}
}

func TestWhatKeepsAWebIdentityFromItsRole(t *testing.T) {
	t.Parallel()

	answer := func(status int, body string) transport {
		return func(*http.Request) (int, string, error) { return status, body, nil }
	}

	for name, c := range map[string]struct {
		env  map[string]string
		far  transport
		code engine.Code
		says string
	}{
		"no token is mounted":      {webIdentity("AWS_WEB_IDENTITY_TOKEN_FILE", "/none"), nobody, engine.CodeCredentialsInvalid, "open /none"},
		"no role is named":         {webIdentity("AWS_ROLE_ARN", ""), nobody, engine.CodeCredentialsInvalid, "AWS_ROLE_ARN"},
		"the role may not be had":  {webIdentity(), answer(403, fmt.Sprintf(stsRefusal, "AccessDenied")), engine.CodeCredentialsInvalid, "assume role arn:aws:iam::1:role/estiba with the token in /token: failed to retrieve credentials, operation error STS: AssumeRoleWithWebIdentity, https response error StatusCode: 403, RequestID: , api error AccessDenied: said so"},
		"the token is too old":     {webIdentity(), answer(400, fmt.Sprintf(stsRefusal, "ExpiredTokenException")), engine.CodeCredentialsInvalid, "ExpiredTokenException"},
		"it is somebody else's":    {webIdentity(), answer(400, fmt.Sprintf(stsRefusal, "IDPCommunicationError")), engine.CodeStoreUnavailable, "IDPCommunicationError"},
		"the service is in need":   {webIdentity(), answer(503, "busy"), engine.CodeStoreUnavailable, "503"},
		"nobody answers":           {webIdentity(), nobody, engine.CodeStoreUnavailable, "nobody may ask"},
		"it sends us elsewhere":    {webIdentity(), answer(307, ""), engine.CodeCredentialsInvalid, "307"},
		"it is no STS":             {webIdentity(), answer(200, "hello"), engine.CodeStoreUnavailable, "did not contain credentials"},
		"and is no XML either":     {webIdentity(), answer(200, "<html"), engine.CodeStoreUnavailable, "deserialization failed"},
		"it quotes the token":      {webIdentity(), answer(400, fmt.Sprintf(stsRefusal, jwt)), engine.CodeCredentialsInvalid, "(token)"},
		"it wants us to slow down": {webIdentity(), answer(400, fmt.Sprintf(stsRefusal, "Throttling")), engine.CodeStoreUnavailable, "Throttling"},
		"it forgot the keys":       {webIdentity(), answer(200, stsEmpty), engine.CodeCredentialsInvalid, "no credentials"},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()

			_, err := surroundings(c.env, c.far, nobody).Credentials(t.Context(), settings.Settings{})
			require.ErrorContains(t, err, c.says)
			assert.Equal(t, c.code, engine.CodeOf(err))
			assert.NotContains(t, err.Error(), "signature")
		})
	}
}

func TestAContainersEndpointIsAsked(t *testing.T) {
	t.Parallel()

	for name, c := range map[string]struct {
		env             map[string]string
		url, authorized string
		far             bool
		refused         string
	}{
		"as pods of Amazon's clusters have it": {
			env: map[string]string{"AWS_CONTAINER_CREDENTIALS_FULL_URI": "http://169.254.170.23/v1/credentials", "AWS_CONTAINER_AUTHORIZATION_TOKEN_FILE": "/token"},
			url: "http://169.254.170.23/v1/credentials", authorized: jwt,
		},
		"and the same over IPv6":       {env: map[string]string{"AWS_CONTAINER_CREDENTIALS_FULL_URI": "http://[fd00:ec2::23]/v1/credentials"}, url: "http://[fd00:ec2::23]/v1/credentials"},
		"as tasks of theirs have it":   {env: map[string]string{"AWS_CONTAINER_CREDENTIALS_RELATIVE_URI": "/v2/x"}, url: "http://169.254.170.2/v2/x"},
		"of another host, over TLS":    {env: map[string]string{"AWS_CONTAINER_CREDENTIALS_FULL_URI": "https://agent.example/c", "AWS_CONTAINER_AUTHORIZATION_TOKEN": "tok"}, url: "https://agent.example/c", authorized: "tok", far: true},
		"but not of one without TLS":   {env: map[string]string{"AWS_CONTAINER_CREDENTIALS_FULL_URI": "http://agent.example/c"}, refused: "neither https nor"},
		"and not without its token":    {env: map[string]string{"AWS_CONTAINER_CREDENTIALS_FULL_URI": "http://127.0.0.1/c", "AWS_CONTAINER_AUTHORIZATION_TOKEN_FILE": "/none"}, refused: "open /none"},
		"and not what is no URL":       {env: map[string]string{"AWS_CONTAINER_CREDENTIALS_FULL_URI": "http://[::1"}, refused: "not a URL"},
		"and nothing, where told so":   {env: map[string]string{"AWS_EC2_METADATA_DISABLED": "TRUE"}, refused: "AWS_EC2_METADATA_DISABLED"},
		"unless keys are there anyway": {env: map[string]string{"AWS_ACCESS_KEY_ID": "A", "AWS_SECRET_ACCESS_KEY": "B", "AWS_CONTAINER_CREDENTIALS_RELATIVE_URI": "/v2/x"}},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()

			answers := func(r *http.Request) (int, string, error) {
				assert.Equal(t, c.url, r.URL.String())
				assert.Equal(t, c.authorized, r.Header.Get("Authorization"))

				return http.StatusOK, jsonAnswer, nil
			}

			far, near := transport(nobody), transport(answers)
			if c.far {
				far, near = near, far
			}

			got, err := surroundings(c.env, far, near).Credentials(t.Context(), settings.Settings{})

			switch {
			case c.refused != "":
				require.ErrorContains(t, err, c.refused)
				assert.Equal(t, engine.CodeCredentialsInvalid, engine.CodeOf(err))
			case c.url == "":
				require.NoError(t, err)
				assert.Equal(t, settings.Credentials{AccessKeyID: "A", SecretAccessKey: "B"}, got)
			default:
				require.NoError(t, err)
				assert.Equal(t, granted(), got)
			}
		})
	}
}

func TestAContainersEndpointMayAnswerAnything(t *testing.T) {
	t.Parallel()

	for name, c := range map[string]struct {
		status int
		body   string
		code   engine.Code
		says   string
	}{
		"a refusal that quotes the token": {403, "who is " + jwt + "?", engine.CodeCredentialsInvalid, "who is (token)?"},
		"a refusal without end":           {403, strings.Repeat("x", 2<<20), engine.CodeCredentialsInvalid, "xxx"},
		"a way to somebody else":          {302, "there", engine.CodeCredentialsInvalid, "there"},
		"that it is busy":                 {429, "later", engine.CodeStoreUnavailable, "later"},
		"what is no JSON":                 {200, "<html>", engine.CodeStoreUnavailable, "deserialize"},
		"null":                            {200, " null\n", engine.CodeStoreUnavailable, "the answer is null"},
		"keys that are empty":             {200, "{}", engine.CodeCredentialsInvalid, "no credentials"},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()

			env := map[string]string{"AWS_CONTAINER_CREDENTIALS_FULL_URI": "http://127.0.0.1/c", "AWS_CONTAINER_AUTHORIZATION_TOKEN_FILE": "/token"}

			_, err := surroundings(env, nobody, func(*http.Request) (int, string, error) { return c.status, c.body, nil }).
				Credentials(t.Context(), settings.Settings{})
			require.ErrorContains(t, err, c.says)
			assert.Equal(t, c.code, engine.CodeOf(err))
			assert.NotContains(t, err.Error(), "signature")
			assert.Less(t, len(err.Error()), 1000)
		})
	}
}

func TestAQuestionIsRepeatedAndEndsWithItsContext(t *testing.T) {
	t.Parallel()

	ctx, cancel := context.WithCancel(t.Context())
	asked := 0

	_, err := surroundings(webIdentity(), func(r *http.Request) (int, string, error) {
		if asked++; asked == 1 {
			return http.StatusServiceUnavailable, "", nil
		}

		cancel()
		<-r.Context().Done()

		return 0, "", r.Context().Err()
	}, nobody).Credentials(ctx, settings.Settings{})
	require.ErrorContains(t, err, "canceled")
	assert.Equal(t, engine.CodeStoreUnavailable, engine.CodeOf(err))
	assert.Equal(t, 2, asked)
}

func TestTheProcessesOwnVariablesDontCount(t *testing.T) {
	for name, value := range map[string]string{
		"AWS_ACCESS_KEY_ID": "X", "AWS_SECRET_ACCESS_KEY": "X", "AWS_REGION": "us-gov-west-1", "AWS_ENDPOINT_URL": "https://x.example",
		"AWS_ENDPOINT_URL_STS": "https://x.example", "AWS_USE_FIPS_ENDPOINT": "true", "AWS_CONFIG_FILE": "/dev/full",
		"AWS_EC2_METADATA_DISABLED": "true", "AWS_EC2_METADATA_SERVICE_ENDPOINT": "https://x.example",
	} {
		t.Setenv(name, value)
	}

	var asked []string

	answers := func(body string) transport {
		return func(r *http.Request) (int, string, error) {
			asked = append(asked, r.URL.String())
			if r.Method == http.MethodPut {
				return http.StatusNotFound, "", nil
			}

			return http.StatusOK, body, nil
		}
	}

	_, err := surroundings(webIdentity(), answers(stsAnswer), nobody).Credentials(t.Context(), settings.Settings{})
	require.NoError(t, err)

	_, err = surroundings(nil, nobody, answers("")).Credentials(t.Context(), settings.Settings{})
	require.ErrorContains(t, err, "empty EC2 IMDS role list")

	assert.Equal(t, []string{
		"https://sts.amazonaws.com/", "http://169.254.169.254/latest/api/token",
		"http://169.254.169.254/latest/meta-data/iam/security-credentials/",
	}, asked)
}

// metadata is a machine's service: of the second version, if it has a session's token.
type metadata struct {
	token, roles, keys string
	// fails is the status of all answers but that with a token; drops is how many requests get none.
	fails int
	drops int64
}

func (m *metadata) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	if atomic.AddInt64(&m.drops, -1) >= 0 {
		panic(http.ErrAbortHandler)
	}

	if r.URL.Path == "/latest/api/token" {
		if m.token == "" {
			http.NotFound(w, r)
			return
		}

		if r.Method == http.MethodPut && r.Header.Get("X-aws-ec2-metadata-token-ttl-seconds") != "" {
			w.Header().Set("X-aws-ec2-metadata-token-ttl-seconds", r.Header.Get("X-aws-ec2-metadata-token-ttl-seconds"))
			fmt.Fprint(w, m.token)
		}

		return
	}

	switch {
	case r.Header.Get("X-aws-ec2-metadata-token") != m.token:
		w.WriteHeader(http.StatusUnauthorized)
	case m.fails != 0:
		w.WriteHeader(m.fails)
	case r.URL.Path == "/latest/meta-data/iam/security-credentials/":
		fmt.Fprint(w, m.roles)
	case r.URL.Path == "/latest/meta-data/iam/security-credentials/"+strings.TrimSpace(m.roles):
		fmt.Fprint(w, m.keys)
	default:
		http.NotFound(w, r)
	}
}

func TestTheMachinesRoleIsTheLastResort(t *testing.T) {
	t.Parallel()

	for name, c := range map[string]struct {
		service metadata
		code    engine.Code
		says    string
	}{
		"with a session":                  {service: metadata{token: "session", roles: "node-role", keys: jsonAnswer}},
		"without, as stand-ins do it":     {service: metadata{roles: "node-role\n", keys: jsonAnswer}},
		"also when a request is dropped":  {service: metadata{token: "session", roles: "node-role", keys: jsonAnswer, drops: 2}},
		"but not if nobody answers":       {metadata{drops: 100}, engine.CodeCredentialsInvalid, "this pod was given no role (AWS_WEB_IDENTITY_TOKEN_FILE is not set): ask the machine's metadata for one: "},
		"nor if the machine has no role":  {metadata{token: "session"}, engine.CodeCredentialsInvalid, "empty EC2 IMDS role list"},
		"nor if it is refused":            {metadata{token: "session", fails: 403}, engine.CodeCredentialsInvalid, "403"},
		"nor if the role can't be had":    {metadata{roles: "r", keys: `{"Code":"AssumeRoleUnauthorizedAccess","Message":"no"}`}, engine.CodeCredentialsInvalid, "AssumeRoleUnauthorizedAccess: no"},
		"and a service in need is waited": {metadata{token: "session", fails: 503}, engine.CodeStoreUnavailable, "503"},
		"and so is one that babbles":      {metadata{roles: "r", keys: "<html>"}, engine.CodeStoreUnavailable, "invalid character"},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()

			server := httptest.NewServer(&c.service)
			t.Cleanup(server.Close)

			s := surroundings(map[string]string{"AWS_EC2_METADATA_SERVICE_ENDPOINT": server.URL + "/"}, nobody, nil)
			s.Near = &http.Client{Transport: &http.Transport{DisableKeepAlives: true}}

			got, err := s.Credentials(context.Background(), settings.Settings{})
			if c.says != "" {
				require.ErrorContains(t, err, c.says)
				assert.Equal(t, c.code, engine.CodeOf(err))

				return
			}

			require.NoError(t, err)
			// The library asks a machine again after an hour at the latest.
			assert.WithinDuration(t, time.Now().Add(time.Hour), got.Expires, time.Minute)

			got.Expires = granted().Expires
			assert.Equal(t, granted(), got)
		})
	}
}
