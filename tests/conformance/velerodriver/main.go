// Command velerodriver plays the server of one Velero version towards the
// plugins in a folder: it does what the conformance tests ask for on its input,
// with that version's own code, and answers on its output. The tests build it
// once for each version, with the module files beside them. It must not import
// anything of Estiba but the wire format, and decides nothing.
//
// Usage: velerodriver PLUGINS
package main

import (
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"os"

	"github.com/sirupsen/logrus"
	"github.com/spf13/pflag"
	velerov1 "github.com/vmware-tanzu/velero/pkg/apis/velero/v1"
	"github.com/vmware-tanzu/velero/pkg/plugin/clientmgmt"
	"github.com/vmware-tanzu/velero/pkg/plugin/clientmgmt/process"
	"github.com/vmware-tanzu/velero/pkg/plugin/framework"
	"github.com/vmware-tanzu/velero/pkg/plugin/velero"
	"k8s.io/apimachinery/pkg/apis/meta/v1/unstructured"
	"k8s.io/apimachinery/pkg/runtime"

	"github.com/estiba-dev/estiba/tests/conformance/velerodriver/wire"
)

func main() {
	// Velero runs itself for the plugins that are built into it.
	if len(os.Args) > 1 && os.Args[1] == "run-plugins" {
		framework.NewServer().BindFlags(pflag.NewFlagSet("velero", pflag.ContinueOnError)).Serve()

		return
	}

	if len(os.Args) != 2 {
		fmt.Fprintln(os.Stderr, "usage: velerodriver PLUGINS")
		os.Exit(2)
	}

	dir := os.Args[1]
	// What a server hands over to its plugins, among it flags that no plugin knows.
	os.Args = []string{os.Args[0], "server", "--log-level=debug", "--features=EnableCSI", "--uploader-type=kopia", "--some-flag-of-tomorrow=1"}

	if err := serve(dir, os.Stdin, os.Stdout); err != nil {
		fmt.Fprintln(os.Stderr, "velerodriver:", err)
		os.Exit(1)
	}
}

// serve answers requests until there are no more.
func serve(dir string, in io.Reader, out io.Writer) error {
	log := logrus.New()
	log.SetLevel(logrus.DebugLevel)

	registry := process.NewRegistry(dir, log, logrus.DebugLevel)
	if err := registry.DiscoverPlugins(); err != nil {
		return fmt.Errorf("look for plugins in %s: %w", dir, err)
	}

	manager := clientmgmt.NewManager(log, logrus.DebugLevel, registry)
	defer manager.CleanupClients()

	for requests, responses := json.NewDecoder(in), json.NewEncoder(out); ; {
		var request wire.Request
		if err := requests.Decode(&request); errors.Is(err, io.EOF) {
			return nil
		} else if err != nil {
			return fmt.Errorf("read a request: %w", err)
		}

		response, err := answer(manager, request)
		if err != nil {
			response.Error = err.Error()
		}

		if err := responses.Encode(response); err != nil {
			return fmt.Errorf("answer: %w", err)
		}
	}
}

func answer(manager clientmgmt.Manager, r wire.Request) (wire.Response, error) {
	switch r.Kind {
	case wire.Backup:
		return backup(manager, r)
	case wire.Restore:
		return restore(manager, r)
	case wire.Delete:
		return remove(manager, r)
	default:
		return wire.Response{}, fmt.Errorf("no kind of action %q", r.Kind)
	}
}

func backup(manager clientmgmt.Manager, r wire.Request) (response wire.Response, err error) {
	action, err := manager.GetBackupItemActionV2(r.Name)
	if err != nil {
		return response, err
	}

	owner, err := decoded[velerov1.Backup](r.Owner)
	if err != nil {
		return response, err
	}

	switch r.Method {
	case wire.AppliesTo:
		response.Selector, err = action.AppliesTo()
	case wire.Progress:
		response.Progress, err = action.Progress(r.Operation, owner)
	case wire.Cancel:
		err = action.Cancel(r.Operation, owner)
	case wire.Execute:
		var item runtime.Unstructured
		if item, err = object(r.Item); err != nil {
			return response, err
		}

		item, response.Additional, response.Operation, response.Later, err = action.Execute(item, owner)
		if err != nil {
			return response, err
		}

		response.Item, err = encoded(item)
	default:
		err = fmt.Errorf("no method %q", r.Method)
	}

	return response, err
}

func restore(manager clientmgmt.Manager, r wire.Request) (response wire.Response, err error) {
	action, err := manager.GetRestoreItemActionV2(r.Name)
	if err != nil {
		return response, err
	}

	owner, err := decoded[velerov1.Restore](r.Owner)
	if err != nil {
		return response, err
	}

	switch r.Method {
	case wire.AppliesTo:
		response.Selector, err = action.AppliesTo()
	case wire.Progress:
		response.Progress, err = action.Progress(r.Operation, owner)
	case wire.Cancel:
		err = action.Cancel(r.Operation, owner)
	case wire.Ready:
		response.Ready, err = action.AreAdditionalItemsReady(r.Additional, owner)
	case wire.Execute:
		input := velero.RestoreItemActionExecuteInput{Restore: owner}
		if input.Item, err = object(r.Item); err != nil {
			return response, err
		}

		if input.ItemFromBackup, err = object(r.ItemFromBackup); err != nil {
			return response, err
		}

		out, err := action.Execute(&input)
		if err != nil {
			return response, err
		}

		response.Additional, response.Operation, response.Skip, response.Wait = out.AdditionalItems, out.OperationID, out.SkipRestore, out.WaitForAdditionalItems
		response.Item, err = encoded(out.UpdatedItem)

		return response, err
	default:
		err = fmt.Errorf("no method %q", r.Method)
	}

	return response, err
}

func remove(manager clientmgmt.Manager, r wire.Request) (response wire.Response, err error) {
	action, err := manager.GetDeleteItemAction(r.Name)
	if err != nil {
		return response, err
	}

	switch r.Method {
	case wire.AppliesTo:
		response.Selector, err = action.AppliesTo()
	case wire.Execute:
		var input velero.DeleteItemActionExecuteInput
		if input.Backup, err = decoded[velerov1.Backup](r.Owner); err != nil {
			return response, err
		}

		if input.Item, err = object(r.Item); err != nil {
			return response, err
		}

		err = action.Execute(&input)
	default:
		err = fmt.Errorf("no method %q", r.Method)
	}

	return response, err
}

func decoded[T any](text json.RawMessage) (*T, error) {
	object := new(T)
	if len(text) == 0 {
		return object, nil
	}

	return object, json.Unmarshal(text, object)
}

// object reads an item, with whole numbers as Velero has them.
func object(text json.RawMessage) (runtime.Unstructured, error) {
	u := &unstructured.Unstructured{}

	return u, u.UnmarshalJSON(text)
}

func encoded(item runtime.Unstructured) (json.RawMessage, error) {
	if item == nil {
		return nil, nil
	}

	return json.Marshal(item.UnstructuredContent())
}
