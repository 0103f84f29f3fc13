package role

import (
	"bytes"
	"cmp"
	"context"
	"encoding/json"
	"errors"
	"io"
	"net/http"
	"strings"
	"time"

	"github.com/aws/aws-sdk-go-v2/aws"
	"github.com/aws/aws-sdk-go-v2/aws/retry"
	"github.com/aws/smithy-go"

	"github.com/estiba-dev/estiba/mover/engine"
	"github.com/estiba-dev/estiba/mover/store/settings"
)

const (
	// patience bounds a question with all its attempts; nearTry and farTry bound one request.
	patience = 10 * time.Second
	nearTry  = time.Second
	farTry   = 5 * time.Second
	// pause is what lies between two attempts.
	pause = 500 * time.Millisecond
	// maxAnswer bounds what is read of an answer, in bytes.
	maxAnswer = 1 << 20
)

// question is one for credentials.
type question struct {
	attempt  string
	provider aws.CredentialsProvider
	// token goes with it, if it is not empty.
	token string
	// silence is the code where nobody answers.
	silence engine.Code
}

// ask returns the credentials. The error is an *engine.Error.
func (q question) ask(ctx context.Context) (settings.Credentials, error) {
	ctx, cancel := context.WithTimeout(ctx, patience)
	defer cancel()

	c, err := q.provider.Retrieve(ctx)
	if err != nil {
		// The text may quote an answer: at length, and an answer may quote the token.
		text := strings.ReplaceAll(err.Error(), cmp.Or(q.token, "\x00"), "(token)")

		return settings.Credentials{}, engine.Errorf(q.code(err), "%s: %.500s", q.attempt, text)
	}

	if !c.HasKeys() {
		return settings.Credentials{}, engine.Errorf(engine.CodeCredentialsInvalid, "%s: the answer holds no credentials", q.attempt)
	}

	return settings.Credentials{
		AccessKeyID: c.AccessKeyID, SecretAccessKey: c.SecretAccessKey, SessionToken: c.SessionToken, Expires: c.Expires,
	}, nil
}

// code distinguishes an answer that another one may follow from a final one.
func (q question) code(err error) engine.Code {
	var (
		answer interface{ HTTPStatusCode() int }
		said   smithy.APIError
		babble *json.SyntaxError
		status int
	)

	if errors.As(err, &answer) {
		status = answer.HTTPStatusCode()
	}

	refused := errors.As(err, &said)

	switch {
	case status == http.StatusTooManyRequests, status >= http.StatusInternalServerError, errors.As(err, &babble),
		refused && said.ErrorCode() == "IDPCommunicationError",
		retry.IsErrorThrottles(retry.DefaultThrottles).IsErrorThrottle(err) == aws.TrueTernary:
		return engine.CodeStoreUnavailable
	case refused, status >= http.StatusMultipleChoices:
		return engine.CodeCredentialsInvalid
	default:
		return q.silence
	}
}

// retries is how a question is repeated: the services are known to drop
// requests when many processes start at once.
func retries() aws.Retryer { return retry.AddWithMaxBackoffDelay(retry.NewStandard(), pause) }

// doer sends the library's requests, and bounds what they cost.
type doer struct{ client http.Client }

func newDoer(client *http.Client, timeout time.Duration) doer {
	d := doer{*client}
	d.client.Timeout = timeout
	// A token goes where it was meant to go, and nowhere that somebody redirects it to.
	d.client.CheckRedirect = func(*http.Request, []*http.Request) error { return http.ErrUseLastResponse }

	return d
}

// Do returns an answer that was read.
func (d doer) Do(req *http.Request) (*http.Response, error) {
	res, err := d.client.Do(req) //nolint:gosec // to the address that the surroundings name
	if err != nil {
		return nil, err
	}
	defer res.Body.Close() //nolint:errcheck // what counts was read

	body, err := io.ReadAll(io.LimitReader(res.Body, maxAnswer))
	if bytes.Equal(bytes.TrimSpace(body), []byte("null")) {
		// The library for containers' endpoints does not survive it.
		err = errors.New("the answer is null")
	}

	res.Body = io.NopCloser(bytes.NewReader(body))

	return res, err
}
