// argocd-engine does with a file of manifests what Argo CD does with an application, by its own engine
// (github.com/argoproj/argo-cd/gitops-engine):
//
//	argocd-engine sync FILE           applies it, and prunes what it applied before and is not in the file
//	argocd-engine drift FILE          prints the objects that are out of sync; exit code 3 if there are any
//	argocd-engine delete              deletes what it has applied
//	argocd-engine health LUA OBJECT   prints the health that the script LUA gives an object (a JSON file)
//
// KUBECONFIG names the cluster. It decides nothing else; e2e/test_gitops.sh uses it.
package main

import (
	"context"
	"encoding/json"
	"fmt"
	"os"
	"time"

	"github.com/argoproj/argo-cd/gitops-engine/pkg/cache"
	"github.com/argoproj/argo-cd/gitops-engine/pkg/diff"
	"github.com/argoproj/argo-cd/gitops-engine/pkg/engine"
	"github.com/argoproj/argo-cd/gitops-engine/pkg/sync"
	"github.com/argoproj/argo-cd/gitops-engine/pkg/sync/common"
	"github.com/argoproj/argo-cd/gitops-engine/pkg/utils/kube"
	"github.com/go-logr/logr"
	lua "github.com/yuin/gopher-lua"
	"k8s.io/apimachinery/pkg/apis/meta/v1/unstructured"
	"k8s.io/client-go/tools/clientcmd"
)

const (
	drifted = 3
	// Argo CD marks what belongs to an application with it.
	tracking  = "argocd.argoproj.io/tracking-id"
	namespace = "zen-lead-system"
)

func main() {
	code, err := run(os.Args[1:])
	if err != nil {
		fmt.Fprintln(os.Stderr, "argocd-engine:", err)
		os.Exit(1)
	}
	os.Exit(code)
}

func run(args []string) (int, error) {
	switch {
	case len(args) == 2 && args[0] == "sync":
		objects, err := read(args[1])
		if err != nil {
			return 0, err
		}
		return 0, synchronize(objects)
	case len(args) == 2 && args[0] == "drift":
		objects, err := read(args[1])
		if err != nil {
			return 0, err
		}
		return drift(objects)
	case len(args) == 1 && args[0] == "delete":
		return 0, synchronize(nil)
	case len(args) == 3 && args[0] == "health":
		return 0, health(args[1], args[2])
	}
	return 0, fmt.Errorf("usage: argocd-engine sync FILE | drift FILE | delete | health LUA OBJECT")
}

// id is the value of the annotation, as Argo CD writes it for an application called zen-lead.
func id(object *unstructured.Unstructured) string {
	kind := object.GroupVersionKind()
	return fmt.Sprintf("zen-lead:%s/%s:%s/%s", kind.Group, kind.Kind, object.GetNamespace(), object.GetName())
}

func read(file string) ([]*unstructured.Unstructured, error) {
	data, err := os.ReadFile(file)
	if err != nil {
		return nil, err
	}
	objects, err := kube.SplitYAML(data)
	if err != nil {
		return nil, err
	}
	for _, object := range objects {
		annotations := object.GetAnnotations()
		if annotations == nil {
			annotations = map[string]string{}
		}
		annotations[tracking] = id(object)
		object.SetAnnotations(annotations)
	}
	return objects, nil
}

type info struct{ id string }

func managed(resource *cache.Resource) bool {
	found, ok := resource.Info.(*info)
	if !ok || found.id == "" || resource.Resource == nil {
		return false
	}
	// A controller may copy the annotation to objects that it makes.
	return found.id == id(resource.Resource)
}

func clusterCache() (cache.ClusterCache, engine.GitOpsEngine, func(), error) {
	config, err := clientcmd.BuildConfigFromFlags("", os.Getenv("KUBECONFIG"))
	if err != nil {
		return nil, nil, nil, err
	}
	config.QPS, config.Burst = 50, 100
	live := cache.NewClusterCache(config,
		cache.SetLogr(logr.Discard()),
		cache.SetPopulateResourceInfoHandler(func(object *unstructured.Unstructured, _ bool) (any, bool) {
			mark := object.GetAnnotations()[tracking]
			return &info{id: mark}, mark != ""
		}))
	gitops := engine.NewEngine(config, live, engine.WithLogr(logr.Discard()))
	stop, err := gitops.Run()
	return live, gitops, stop, err
}

func synchronize(objects []*unstructured.Unstructured) error {
	_, gitops, stop, err := clusterCache()
	if err != nil {
		return err
	}
	defer stop()
	ctx, cancel := context.WithTimeout(context.Background(), 2*time.Minute)
	defer cancel()
	results, err := gitops.Sync(ctx, objects, managed, "revision", namespace, sync.WithPrune(true), sync.WithLogr(logr.Discard()))
	if err != nil {
		return err
	}
	for _, result := range results {
		fmt.Println(result.Status, result.ResourceKey.String(), result.Message)
		if result.Status == common.ResultCodeSyncFailed {
			err = fmt.Errorf("%s: %s", result.ResourceKey.String(), result.Message)
		}
	}
	return err
}

func drift(objects []*unstructured.Unstructured) (int, error) {
	live, _, stop, err := clusterCache()
	if err != nil {
		return 0, err
	}
	defer stop()
	found, err := live.GetManagedLiveObjs(objects, managed)
	if err != nil {
		return 0, err
	}
	both := sync.Reconcile(objects, found, namespace, live)
	differences, err := diff.DiffArray(both.Target, both.Live, diff.WithLogr(logr.Discard()))
	if err != nil {
		return 0, err
	}
	code := 0
	for i, difference := range differences.Diffs {
		if difference.Modified {
			code = drifted
			fmt.Println(both.Target[i], "normalized:", string(difference.NormalizedLive), "predicted:", string(difference.PredictedLive))
		}
	}
	return code, nil
}

// health runs a script as Argo CD does: the object is the global `obj`, the result a table with status and message.
// (argo-cd.readthedocs.io/en/stable/operator-manual/health)
func health(script, file string) error {
	code, err := os.ReadFile(script)
	if err != nil {
		return err
	}
	data, err := os.ReadFile(file)
	if err != nil {
		return err
	}
	var object any
	if err := json.Unmarshal(data, &object); err != nil {
		return err
	}
	state := lua.NewState()
	defer state.Close()
	state.SetGlobal("obj", value(state, object))
	if err := state.DoString(string(code)); err != nil {
		return err
	}
	table, ok := state.Get(-1).(*lua.LTable)
	if !ok {
		return fmt.Errorf("the script returned %s, not a table", state.Get(-1).Type())
	}
	fmt.Printf("%s: %s\n", state.GetField(table, "status"), state.GetField(table, "message"))
	return nil
}

func value(state *lua.LState, from any) lua.LValue {
	switch from := from.(type) {
	case map[string]any:
		table := state.NewTable()
		for key, inner := range from {
			table.RawSetString(key, value(state, inner))
		}
		return table
	case []any:
		table := state.NewTable()
		for _, inner := range from {
			table.Append(value(state, inner))
		}
		return table
	case string:
		return lua.LString(from)
	case float64:
		return lua.LNumber(from)
	case bool:
		return lua.LBool(from)
	}
	return lua.LNil
}
